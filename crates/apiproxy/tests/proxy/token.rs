//! The proxy's own token, which the kubelet replaces in its file.

use std::os::unix::fs::symlink;
use std::path::Path;

use http::Version;

use crate::world::{World, status};

/// Puts a token in place as the kubelet does: files in a new folder, to which a link is swapped.
fn rotate(token: &Path, value: &str) {
    let folder = token.parent().unwrap();
    let content = folder.join(format!("..{value}"));
    std::fs::create_dir(&content).unwrap();
    std::fs::write(content.join("token"), value).unwrap();
    symlink(&content, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if !token.is_symlink() {
        std::fs::remove_file(token).unwrap();
        symlink("..data/token", token).unwrap();
    }
}

#[tokio::test]
async fn a_request_after_a_rotation_carries_the_new_token_on_the_same_connection() {
    let world = World::new().await;
    assert_eq!(status(&world.get("/api").await), 200);
    for value in ["second", "third"] {
        rotate(&world.token, value);
        assert_eq!(status(&world.get("/api").await), 200);
    }
    let arrived = world.server.arrived();
    let tokens: Vec<String> = arrived.iter().map(|arrived| arrived.token()).collect();
    assert_eq!(tokens, ["Bearer ours", "Bearer second", "Bearer third"]);
    let pooled = |index: usize| (arrived[index].version, arrived[index].connection);
    assert_eq!([pooled(1), pooled(2)], [(Version::HTTP_2, arrived[0].connection); 2]);
    world.stop().await;
}

#[tokio::test]
async fn a_session_after_a_rotation_carries_the_new_token() {
    let world = World::new().await;
    let (_old, answer) = world.ask_session("/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 101, "{answer}");
    rotate(&world.token, "second");
    for protocol in ["SPDY/3.1", "websocket"] {
        assert_eq!(status(&world.ask_session("/exec", protocol).await.1), 101);
    }
    let tokens: Vec<String> = world.server.arrived().iter().map(|arrived| arrived.token()).collect();
    assert_eq!(tokens, ["Bearer ours", "Bearer second", "Bearer second"]);
    world.stop().await;
}

#[tokio::test]
async fn without_its_token_the_proxy_sends_nothing() {
    let world = World::new().await;
    std::fs::remove_file(&world.token).unwrap();
    let answer = world.get("/api").await;
    assert_eq!(status(&answer), 503, "{answer}");
    let (_closed, answer) = world.ask_session("/exec", "SPDY/3.1").await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(world.server.arrived().is_empty());
    world.stop().await;
}
