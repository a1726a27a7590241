use k8s_openapi::ByteString;
use kube::runtime::watcher::Event;
use kubeapi::{NodeConfig, config_file_name};
use serde_json::json;

use super::*;

/// How many Services there are.
const MANY: usize = 1000;

/// An exposed Service that has a proxy.
fn exposed(name: &str, uid: &str, hostname: Option<&str>) -> Service {
    let mut annotations = json!({"tailscale.com/expose": "true"});
    if let Some(hostname) = hostname {
        annotations["tailscale.com/hostname"] = json!(hostname);
    }
    let metadata = json!({
        "name": name, "namespace": "home", "uid": uid, "annotations": annotations, "finalizers": [name::FINALIZER],
    });
    serde_json::from_value(json!({"metadata": metadata, "spec": {"clusterIP": "10.1.0.9"}})).unwrap()
}

/// The two Secrets of a proxy: the device that it is, and the host name that it was given.
fn secrets(owner: &Owner, replica: u32, device: &str, hostname: &str) -> [Secret; 2] {
    let set = name::replica(&owner.base(), replica);
    let mut labels = owner.labels();
    labels.insert(label::REPLICA.to_owned(), replica.to_string());
    let secret = |name: String, key: &str, value: Vec<u8>| {
        let mut secret = Secret { data: Some([(key.to_owned(), ByteString(value))].into()), ..Secret::default() };
        secret.metadata.name = Some(name);
        secret.metadata.namespace = Some("tailscale".to_owned());
        secret.metadata.labels = Some(labels.clone());
        secret
    };
    let file = NodeConfig::of_proxy("https://control.example.com", hostname).write();
    let mut config = secret(name::config_secret(&set), &config_file_name(), file);
    config.metadata.annotations = Some([(credential::DEVICE.to_owned(), device.to_owned())].into());
    let state = secret(name::state_secret(&set), "device_id", device.as_bytes().to_vec());
    [config, state]
}

/// Stores that have seen these Services, each with a proxy whose device was given the name that it asks for.
fn seen(services: &[Service]) -> Stores {
    let (stores, mut scribes) = Stores::empty(&Settings::plain());
    for (number, service) in services.iter().enumerate() {
        scribes.services.write(&Event::Apply(service.clone()));
        let hostname = service::hostname_text(service);
        for secret in secrets(&service::owner(service), 0, &format!("n{number}"), &hostname) {
            scribes.secrets.write(&Event::Apply(secret));
        }
    }
    stores
}

fn many() -> Vec<Service> {
    (0..MANY).map(|number| exposed(&format!("web-{number}"), &format!("uid-{number}"), None)).collect()
}

#[test]
fn a_look_at_each_of_many_services_looks_at_few_others() {
    let services = many();
    let stores = seen(&services);
    let mut claims = 0;
    for (number, service) in services.iter().enumerate() {
        claims += stores.rivals(service).len();
        assert_eq!(stores.replicas(&service::owner(service)), 1);
        assert_eq!(stores.secrets.found_by(&Term::Uid(format!("uid-{number}"))).len(), 2);
        let of_device = stores.secrets.found_by(&Term::Device(format!("n{number}")));
        assert_eq!(of_device.len(), 2);
        assert_eq!(stores.hostname_taken(&Arc::new(service.clone()), &Settings::plain()), None);
    }
    assert_eq!(claims, MANY, "each Service has its own claim to look at, and no other's");
}

#[test]
fn a_host_name_is_found_by_who_asks_for_it_and_by_who_was_given_it() {
    let first = exposed("first", "1", Some("music"));
    let mut stores_of = vec![first.clone()];
    stores_of.extend(many());
    let stores = seen(&stores_of);
    let second = Arc::new(exposed("second", "2", Some("music")));
    assert_eq!(stores.hostname_taken(&second, &Settings::plain()).as_deref(), Some("the Service home/first"));

    // It asks for another name, and has the device still that was given this one.
    let (stores, mut scribes) = Stores::empty(&Settings::plain());
    let renamed = exposed("first", "1", Some("radio"));
    scribes.services.write(&Event::Apply(renamed));
    for secret in secrets(&service::owner(&first), 0, "n1", "music") {
        scribes.secrets.write(&Event::Apply(secret));
    }
    assert_eq!(stores.hostname_taken(&second, &Settings::plain()).as_deref(), Some("the Service home/first"));
}

#[test]
fn a_device_is_anothers_by_what_is_written_down_and_replicas_are_counted() {
    let services = many();
    let (stores, mut scribes) = Stores::empty(&Settings::plain());
    let owner = service::owner(&services[0]);
    for replica in [0, 2] {
        for secret in secrets(&owner, replica, &format!("n{replica}"), "web") {
            scribes.secrets.write(&Event::Apply(secret));
        }
    }
    let base = owner.base();
    assert!(stores.is_anothers("n2", &base));
    assert!(!stores.is_anothers("n0", &base));
    assert!(!stores.is_anothers("n7", &base));
    assert_eq!(stores.replicas(&owner), 3);
    let [config, state] = secrets(&owner, 2, "n2", "web");
    scribes.secrets.write(&Event::Delete(config));
    scribes.secrets.write(&Event::Delete(state));
    assert_eq!(stores.replicas(&owner), 1);
    assert!(!stores.is_anothers("n2", &base));
}

#[test]
fn a_service_that_goes_wakes_those_that_wait_for_its_host_name() {
    let (stores, mut scribes) = Stores::empty(&Settings::plain());
    let (first, second) = (exposed("first", "1", Some("music")), exposed("second", "2", Some("music")));
    for service in [&first, &second, &exposed("third", "3", Some("radio"))] {
        scribes.services.write(&Event::Apply(service.clone()));
    }
    scribes.services.write(&Event::Delete(first.clone()));
    let names: Vec<String> = stores
        .keys_of_service(&first, true, &Settings::plain())
        .into_iter()
        .map(|key| match key {
            Key::Service { name, .. } => name,
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["first", "second"]);
}
