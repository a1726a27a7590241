//! What a pod gives its process, on this machine: an account of the cluster, a state Secret, a configuration.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use loopback::free_port;
use rustls::ServerConfig;
use serde_json::{Value, json};

use crate::program::clean;
use crate::tls::{self, RIGHT};

/// Where a process finds its account, in any pod.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// A pod in whose cluster the API server is away until it is started.
pub(crate) struct Pod {
    home: PathBuf,
    /// The folder with its account, its configuration and its sockets.
    folder: PathBuf,
    port: u16,
    certificate: Arc<ServerConfig>,
}

impl Pod {
    /// A pod whose node has a home, is told of this coordination server, and may have an auth key.
    pub(crate) fn new(home: &Path, control: &str, key: Option<&str>) -> Self {
        let folder = home.join("pod");
        for part in ["account", "config", "run"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        let certificate = tls::certify(&folder, &RIGHT);
        fs::copy(folder.join("ca.pem"), folder.join("account/ca.crt")).unwrap();
        fs::write(folder.join("account/token"), "of-the-account").unwrap();
        fs::write(folder.join("account/namespace"), "door").unwrap();
        let config = json!({"version": "alpha0", "ServerURL": control, "Hostname": "door", "AuthKey": key});
        fs::write(folder.join("config/cap-95.hujson"), config.to_string()).unwrap();
        Self { home: home.to_owned(), folder, port: free_port().unwrap(), certificate }
    }

    /// A command line of the binary in the pod; it needs root.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let script =
            format!("mount -t tmpfs towline-test /run && mkdir -p {ACCOUNT} && cp \"$0\"/* {ACCOUNT} && exec \"$@\"");
        let mut command = clean(Command::new("unshare"), &self.home);
        command.args(["--mount", "--propagation=private", "sh", "-c", &script]);
        command.arg(self.folder.join("account")).arg(env!("CARGO_BIN_EXE_towline")).args(arguments);
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", self.port.to_string());
        command.env("POD_NAME", "door-0").env("POD_UID", "1").env("POD_NAMESPACE", "door");
        command.env("TS_KUBE_SECRET", "state").env("TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", self.folder.join("config"));
        command.env("TOWLINE_RUN_FOLDER", self.folder.join("run"));
        command
    }

    /// Where its API server is to be.
    pub(crate) fn api_server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the API server, which knows the state Secret and takes whatever is written into it.
    pub(crate) fn start_api_server(&self) {
        let secret: Value = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {},
            "metadata": {"name": "state", "namespace": "door", "uid": "1"},
        });
        let secret = secret.to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
        let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{secret}", secret.len());
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        tls::serve(listener, self.certificate.clone(), answer);
    }
}
