use std::error::Error;

/// An error with its causes: of a connection that failed the outermost alone says only that something did.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        // Some errors tell their cause themselves.
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn every_cause_is_told_once() {
        let innermost = Layer { text: "connection refused", source: None };
        let telling = Layer { text: "tcp: connection refused", source: Some(Box::new(innermost)) };
        let outermost = Layer { text: "client error", source: Some(Box::new(telling)) };
        assert_eq!(causes(&outermost), "client error: tcp: connection refused");
    }
}
