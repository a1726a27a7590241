use super::*;
use crate::fake_api_server::{Server, kept, present, serve};

async fn open(client: kube::Client) -> SecretStore {
    SecretStore::open(client, "tailscale", "p-0", |_| {}).await
}

fn change(pairs: &[(&str, Option<&str>)]) -> StateChange {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.map(|text| text.as_bytes().to_vec()))).collect()
}

#[tokio::test]
async fn only_the_keys_that_change_are_patched_and_others_are_left_alone() {
    let mut server = present();
    server.data.insert("theirs".to_owned(), "eA==".to_owned());
    let (handle, client) = serve(server).await;
    let store = open(client).await;
    assert_eq!(store.value("theirs"), Some(b"x".to_vec()));
    store.change(&change(&[("_machinekey", Some("privkey:1")), ("device_fqdn", None)])).await.unwrap();
    assert_eq!(kept(&handle, "_machinekey").as_deref(), Some("privkey:1"));
    assert_eq!(kept(&handle, "theirs").as_deref(), Some("x"));
    assert_eq!(handle.lock().unwrap().patches[0]["data"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_not_written() {
    let (handle, client) = serve(present()).await;
    let store = open(client).await;
    for _ in 0..3 {
        store.change(&change(&[("a", Some("1")), ("b", None)])).await.unwrap();
    }
    assert_eq!(handle.lock().unwrap().patches.len(), 1);
}

#[tokio::test]
async fn a_secret_that_is_not_there_yet_or_not_allowed_yet_is_waited_for_and_the_reason_told() {
    let (handle, client) = serve(Server { failures: [403, 500].into(), ..present() }).await;
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let told = reasons.clone();
    let store = SecretStore::open(client, "tailscale", "p-0", move |reason| told.lock().unwrap().push(reason)).await;
    store.change(&change(&[("a", Some("1"))])).await.unwrap();
    assert_eq!(kept(&handle, "a").as_deref(), Some("1"));
    let reasons = reasons.lock().unwrap();
    assert!(reasons[0].contains("needs the verbs get and patch"), "{reasons:?}");
    assert!(reasons[1].contains("does not answer"), "{reasons:?}");
}

#[tokio::test]
async fn a_missing_secret_is_waited_for() {
    let (handle, client) = serve(Server { uid: None, ..Server::default() }).await;
    let (told, mut reasons) = tokio::sync::mpsc::unbounded_channel();
    let opened = tokio::spawn(async move {
        SecretStore::open(client, "tailscale", "p-0", move |reason| told.send(reason).unwrap()).await
    });
    assert!(reasons.recv().await.unwrap().contains("there is no Secret tailscale/p-0"));
    handle.lock().unwrap().uid = Some("1");
    opened.await.unwrap();
}

#[tokio::test]
async fn a_write_outlives_an_api_server_that_is_away() {
    let (handle, client) = serve(present()).await;
    let store = open(client).await;
    handle.lock().unwrap().failures.extend([503, 429, 409]);
    store.change(&change(&[("a", Some("1"))])).await.unwrap();
    assert_eq!(kept(&handle, "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn the_node_reads_its_own_writes_before_the_secret_has_them() {
    let (handle, client) = serve(present()).await;
    let store = open(client).await;
    handle.lock().unwrap().failures.extend([503; 2]);
    let writer = store.clone();
    let write = tokio::spawn(async move { writer.change(&change(&[("a", Some("1"))])).await });
    while store.value("a").is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.read("a").await.unwrap(), Some(b"1".to_vec()));
    write.await.unwrap().unwrap();
    store.settled().await;
    assert_eq!(kept(&handle, "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_secret_that_was_made_anew_gets_the_whole_state() {
    let (handle, client) = serve(present()).await;
    let store = open(client).await;
    store.change(&change(&[("_machinekey", Some("privkey:1"))])).await.unwrap();
    {
        let mut server = handle.lock().unwrap();
        server.uid = Some("2");
        server.data.clear();
    }
    store.change(&change(&[("device_id", Some("n1"))])).await.unwrap();
    assert_eq!(kept(&handle, "_machinekey").as_deref(), Some("privkey:1"));
    assert_eq!(kept(&handle, "device_id").as_deref(), Some("n1"));
}

#[tokio::test]
async fn what_no_secret_can_hold_is_refused_and_changes_nothing() {
    let (_handle, client) = serve(present()).await;
    let store = open(client).await;
    for name in ["a/b", "", "..", "a b"] {
        assert!(store.change(&change(&[(name, Some("1"))])).await.is_err(), "{name}");
    }
    let big = "x".repeat(MAX_STATE + 1);
    assert!(store.change(&change(&[("a", Some(&big))])).await.is_err());
    assert_eq!(store.names(), Vec::<String>::new());
}
