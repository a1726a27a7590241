use crate::Refusal;

/// Checks that a path means the same to every parser on its way, and says whether it reaches into a pod, a node or a
/// service, which is where sessions are.
pub(crate) fn reaches_into(path: &str) -> Result<bool, Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::Path("it does not begin with a slash"));
    }
    if path.contains("//") {
        return Err(Refusal::Path("it has two slashes in a row"));
    }
    if path.contains('\\') {
        return Err(Refusal::Path("it has a backslash"));
    }
    let decoded = decode(path)?;
    if decoded.iter().filter(|byte| **byte == b'/').count() != path.bytes().filter(|byte| *byte == b'/').count() {
        return Err(Refusal::Path("it has a slash in percent form"));
    }
    if decoded.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\') {
        return Err(Refusal::Path("it has a control character or a backslash in percent form"));
    }
    let segments = || decoded.split(|byte| *byte == b'/').skip(1);
    if segments().any(|segment| segment == b"." || segment == b"..") {
        return Err(Refusal::Path("it has a dot segment"));
    }
    const SESSIONS: [&[u8]; 4] = [b"exec", b"attach", b"portforward", b"proxy"];
    Ok(segments().any(|segment| SESSIONS.contains(&segment)))
}

fn decode(path: &str) -> Result<Vec<u8>, Refusal> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Refusal::Path("it has a percent sign without two hex digits"));
        };
        decoded.push((high * 16 + low) as u8);
    }
    // A second parser that decodes twice must see the same.
    if decoded.contains(&b'%') {
        return Err(Refusal::Path("it is in percent form twice"));
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_pass_and_sessions_are_known() {
        for (path, session) in [
            ("/", false),
            ("/api/v1/namespaces/default/pods", false),
            ("/api/v1/namespaces/default/pods/x/log", false),
            ("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode", false),
            ("/api/v1/namespaces/default/pods/x/exec", true),
            ("/api/v1/namespaces/default/pods/x/%65xec", true),
            ("/api/v1/namespaces/default/pods/x/attach", true),
            ("/api/v1/namespaces/default/pods/x/portforward", true),
            ("/api/v1/namespaces/default/pods/x:80/proxy/a/b", true),
            ("/api/v1/nodes/n/proxy/exec/default/x/c", true),
            ("/api/v1/namespaces/default/services/https:s:443/proxy/", true),
        ] {
            assert_eq!(reaches_into(path), Ok(session), "{path}");
        }
    }

    #[test]
    fn paths_that_two_parsers_read_differently_are_refused() {
        for path in [
            "//api",
            "/api//v1",
            "/api/../v1",
            "/api/./v1",
            "/api/%2e%2e/v1",
            "/api/%2E/v1",
            "/api%2fv1",
            "/api%5cv1",
            "/api\\v1",
            "/api/%",
            "/api/%2",
            "/api/%zz",
            "/api/%252e%252e/v1",
            "/api/%00",
            "/api/..",
            "api/v1",
            "*",
        ] {
            assert!(matches!(reaches_into(path), Err(Refusal::Path(_))), "{path}");
        }
    }
}
