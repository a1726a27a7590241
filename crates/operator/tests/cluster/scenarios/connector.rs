//! The article's Connector, and one of several replicas.

use kubeapi::{Connector, OfferedRoutes, RouteStanding};
use serde_json::json;

use super::{connector, event_says};
use crate::stage::{Stage, eventually};

const MANIFEST: &str = include_str!("../../../../../examples/connector.yaml");

pub(crate) async fn play(stage: &Stage) {
    stage.apply::<Connector>(None, serde_yaml_ng::from_str(MANIFEST).unwrap()).await;
    let set = stage.set_of("robbinsdale-connector").await;
    stage.connector_is("robbinsdale-connector", "False", "ConnectorCreating").await;
    let config = stage.node_config(&set).await;
    let routes: Vec<String> = config.advertise_routes.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["192.168.50.0/24", "10.0.0.0/16", "10.1.0.0/16", "10.69.0.0/16"]);
    stage.join(&set, "nConnector").await;
    stage.connector_is("robbinsdale-connector", "True", "ConnectorCreated").await;
    let status = stage.connectors().get("robbinsdale-connector").await.unwrap().status.unwrap();
    assert_eq!(status.subnet_routes.as_deref(), Some("192.168.50.0/24,10.0.0.0/16,10.1.0.0/16,10.69.0.0/16"));
    assert_eq!(status.hostname.as_deref(), Some("robbinsdale-connector.taila31de.ts.net"));
    assert_eq!(status.devices[0].tailnet_ips, ["100.64.0.7", "fd7a:115c:a1e0::7"]);

    approval(stage, &set).await;
    replicas(stage).await;
}

/// Its proxy says of its routes what the tailnet does with them: nothing, until somebody approves them.
async fn approval(stage: &Stage, set: &str) {
    let routes = ["192.168.50.0/24", "10.0.0.0/16", "10.1.0.0/16", "10.69.0.0/16"];
    let say = async |last: RouteStanding| {
        let standing = |route: &str| if route == routes[3] { last } else { RouteStanding::Served };
        let all = routes.into_iter().map(|route| (route.parse().unwrap(), standing(route))).collect();
        let value = String::from_utf8(OfferedRoutes(all).write("p")).unwrap();
        stage.say(set, json!({"towline_routes": value})).await;
    };
    say(RouteStanding::NotApproved).await;
    let told = stage.connector_is("robbinsdale-connector", "False", "RoutesNotServed").await;
    let step = "towline routes approve robbinsdale-connector.taila31de.ts.net 10.69.0.0/16`";
    assert!(told.message.contains(step) && told.message.contains("autoApprovers"), "{told:?}");
    event_says(stage, "robbinsdale-connector", "RoutesNotServed", "10.69.0.0/16").await;
    say(RouteStanding::Served).await;
    stage.connector_is("robbinsdale-connector", "True", "ConnectorCreated").await;
}

async fn replicas(stage: &Stage) {
    let spec = |replicas: u32| json!({"exitNode": true, "hostnamePrefix": "lab", "replicas": replicas});
    stage.apply::<Connector>(None, connector("lab", spec(2))).await;
    let sets = eventually("two StatefulSets", || async {
        let mut sets = stage.sets_of("lab").await;
        sets.sort();
        if sets.len() == 2 { Ok(sets) } else { Err(format!("{sets:?}")) }
    })
    .await;
    for (index, set) in sets.iter().enumerate() {
        assert_eq!(stage.node_config(set).await.hostname.as_deref(), Some(format!("lab-{index}").as_str()));
        stage.join(set, &format!("nLab{index}")).await;
    }
    stage.connector_is("lab", "True", "ConnectorCreated").await;

    stage.apply::<Connector>(None, connector("lab", spec(1))).await;
    eventually("the second replica and its device go", || async {
        let removed = stage.control.memory().removed.clone();
        let sets = stage.sets_of("lab").await;
        if sets.len() == 1 && removed.contains(&"nLab1".to_owned()) {
            Ok(())
        } else {
            Err(format!("{sets:?} {removed:?}"))
        }
    })
    .await;
    stage.connector_is("lab", "True", "ConnectorCreated").await;
    assert!(stage.control.memory().devices.contains_key("nLab0"));
}
