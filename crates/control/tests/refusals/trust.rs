//! The certificate that people are asked to trust.

use http::StatusCode;

use crate::server::Server;

#[tokio::test]
async fn what_is_handed_out_to_be_trusted_is_the_tailnets_anchor_and_never_the_root() {
    let server = Server::start().await;
    let (status, only) = server.get("/trust.pem").await;
    assert_eq!(status, StatusCode::OK, "{only}");
    let anchor = std::fs::read_to_string(server.data().join("authority/tailnet-1.test.ts.net.anchor.crt")).unwrap();
    let root = std::fs::read_to_string(server.data().join("authority/root.crt")).unwrap();
    assert_eq!(only, anchor);
    assert!(!only.as_str().unwrap().contains(root.trim()));
    assert_eq!(server.get("/trust.pem?domain=TEST.ts.net.").await, (StatusCode::OK, only));
    let (status, said) = server.get("/trust.pem?domain=other.ts.net").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(said, "there is no tailnet with this domain here\n");
}
