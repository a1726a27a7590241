//! A coordination server whose certificate is not what it should be: CLI, node and operator name the URL, the reason and the
//! next step.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::missing::{operator, unready};
use crate::program::run;
use crate::server::{node, status};

/// A certificate for one name, until a year, and who has signed it.
struct Shown {
    name: &'static str,
    until: i32,
}

/// Serves TLS with a certificate until the process ends; the authority's certificate goes to `ca.pem`. Answers the URL.
fn serve(home: &Path, shown: &Shown) -> String {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    fs::write(home.join("ca.pem"), authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![shown.name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(shown.until, 1, 1);
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            // The client hangs up half way: that is what is tested.
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
    });
    url
}

const CASES: [(Shown, bool, &str); 3] = [
    (
        Shown { name: "127.0.0.1", until: 4000 },
        false,
        "its certificate is signed by nobody who is trusted here; if that is an authority of your own, name its certificate with --ca-file or TOWLINE_CA_FILE (in the chart: caBundle)",
    ),
    (Shown { name: "other.test", until: 4000 }, true, "other.test"),
    (
        Shown { name: "127.0.0.1", until: 2001 },
        true,
        "its certificate has expired; renew it on the server, or check the clock of this machine",
    ),
];

#[test]
fn the_command_line_names_url_reason_and_next_step() {
    for (shown, trusted, says) in CASES {
        let home = tempfile::tempdir().unwrap();
        let url = serve(home.path(), &shown);
        let authority = home.path().join("ca.pem");
        let mut arguments = vec!["--server", &url, "--api-key", "tskey-api-x", "keys", "list"];
        if trusted {
            arguments.extend(["--ca-file", authority.to_str().unwrap()]);
        }
        let outcome = run(home.path(), &arguments);
        assert_eq!(outcome.code, Some(4), "{}", outcome.err);
        assert!(outcome.err.contains(&url) && outcome.err.contains(says), "{}", outcome.err);
        let outcome = run(home.path(), ["--server", &url, "trust", "show"]);
        assert_ne!(outcome.code, Some(0));
        assert!(outcome.err.contains("127.0.0.1 can't be trusted: its certificate "), "{}", outcome.err);
    }
}

#[test]
fn a_node_says_it_in_its_status_and_keeps_trying() {
    let home = tempfile::tempdir().unwrap();
    let url = serve(home.path(), &CASES[0].0);
    let (mut daemon, socket) = node(home.path(), &url, "laptop", None);
    let health = daemon.until("the status tells why", || {
        let health = status(home.path(), &socket)?["Health"].to_string();
        health.contains("its certificate").then_some(health)
    });
    assert!(health.contains(&url) && health.contains(CASES[0].2), "{health}");
    let shown = run(home.path(), ["--socket", socket.to_str().unwrap(), "status"]);
    assert!(format!("{}{}", shown.out, shown.err).contains(CASES[0].2), "{shown:?}");
    assert!(daemon.is_alive());
}

#[test]
fn an_operator_says_it_where_probes_look_and_keeps_trying() {
    let home = tempfile::tempdir().unwrap();
    let url = serve(home.path(), &CASES[0].0);
    let (mut daemon, port) = operator(home.path(), &url, true);
    let said = unready(&mut daemon, port, "its certificate");
    assert!(said.contains(&url) && said.contains(CASES[0].2), "{said}");
    assert!(daemon.is_alive());
}
