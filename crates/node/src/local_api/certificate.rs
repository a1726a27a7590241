use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::reply::{Refusal, Reply, text_reply};
use super::routes::Asked;
use crate::certificate::{Certificate, CertificateError};

/// Answers with the certificate of the node's own name and its key, in PEM: `GET cert/NAME?type=pair|crt|key`.
///
/// With `min_validity` the certificate is valid for that long at least, and renewed where it is not.
pub(super) async fn answer(asked: &Asked, name: &str) -> Result<Reply, Refusal> {
    asked.write()?;
    let kind = asked.query.get("type").map(String::as_str).unwrap_or_default();
    if !matches!(kind, "" | "crt" | "cert" | "key" | "pair") {
        return Err(Refusal::malformed(format!("invalid 'type' parameter {kind:?}: it is crt, key or pair")));
    }
    let least = match asked.query.get("min_validity").map(String::as_str) {
        None | Some("") => Duration::ZERO,
        Some(text) => duration(text).ok_or_else(|| {
            Refusal::malformed(format!("invalid 'min_validity' parameter {text:?}: write it as in 72h"))
        })?,
    };
    let certificate = certificate(asked, name, least).await?;
    Ok(text_reply(match kind {
        "key" => certificate.key_pem().to_owned(),
        "pair" => format!("{}{}", certificate.key_pem(), certificate.chain_pem()),
        _ => certificate.chain_pem().to_owned(),
    }))
}

async fn certificate(asked: &Asked, name: &str, least: Duration) -> Result<Certificate, Refusal> {
    let own = asked.snapshot().own_name().ok_or(CertificateError::NoName)?;
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name != own {
        return Err(CertificateError::Foreign { asked: name, own }.into());
    }
    let certifier = asked.node.certifier();
    let now = Timestamp::now();
    let kept = certifier.kept(&name).await?.filter(|kept| kept.left(now) >= least);
    let enough = |kept: &Certificate| now < kept.due() && kept.left(now) >= least;
    let certificate = match (certifier.obtain(&asked.node, &name, enough).await, kept) {
        (Ok(certificate), _) => certificate,
        // Due, and yet as good as was asked for.
        (Err(error), Some(kept)) => {
            tracing::warn!(%error, "there is no new certificate; the one that is kept is given out");
            kept
        }
        (Err(error), None) => return Err(error.into()),
    };
    if certificate.left(now) < least {
        let days = certificate.life().as_secs() / 86_400;
        let text = format!("no certificate is valid for so long: the tailnet's authority signs them for {days} days");
        return Err(Refusal::malformed(text));
    }
    Ok(certificate)
}

impl From<CertificateError> for Refusal {
    fn from(error: CertificateError) -> Self {
        let status = match &error {
            CertificateError::Foreign { .. } => StatusCode::BAD_REQUEST,
            CertificateError::NoName | CertificateError::NotConnected => StatusCode::CONFLICT,
            CertificateError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            CertificateError::Refused { .. } | CertificateError::Unusable(_) => StatusCode::BAD_GATEWAY,
            CertificateError::Key(_) | CertificateError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// Reads a duration as Go writes it, in whole hours, minutes and seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..end].parse().ok()?;
        let unit = match rest.as_bytes()[end] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[end + 1..];
    }
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_go_writes_it() {
        assert_eq!(duration("72h0m0s"), Some(Duration::from_secs(72 * 3600)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        for wrong in ["3", "h", "1d", "-1h", "1h ", "99999999999999999999h", "9999999999999999h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
