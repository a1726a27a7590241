//! Pushes into the real registry that the laboratory runs.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use cache::Cache;
use image::{Image, LayerBuilder, Layout, Process, Reference, Registry};

/// The registry, on a port that the kernel chose; it ends with the value.
struct Running {
    child: Child,
    address: SocketAddr,
    _storage: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let program = Cache::locate().unwrap().program("registry");
        assert!(program.is_file(), "{} is missing: `cargo xtask fetch` makes it", program.display());
        let storage = tempfile::tempdir().unwrap();
        let config = storage.path().join("config.yaml");
        let root = storage.path().join("data");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: info, formatter: text}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
                root.display()
            ),
        )
        .unwrap();
        let mut child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the registry ended before it listened");
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(|letter: char| letter != '.' && letter != ':' && !letter.is_ascii_digit());
                break rest[..end.unwrap_or(rest.len())].parse().unwrap();
            }
        };
        // Its log is read to the end, as a full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address, _storage: storage }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
        write!(stream, "GET {path} HTTP/1.1\r\nHost: registry\r\n{accept}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn image() -> Image {
    let layer = LayerBuilder::new().bytes("/probe", vec![b'x'; 3 << 20], 0o755).build().unwrap();
    Image::new(Process { entrypoint: vec!["/probe".to_owned()], ..Process::default() }, vec![layer])
}

#[test]
fn a_pushed_image_is_served_under_its_tag_and_digest() {
    let registry = Running::start();
    let image = image();
    let digest = Registry::at(registry.address).push(&image, &Reference::new("towline/probe", "1")).unwrap();
    assert_eq!(&digest, image.manifest().unwrap().digest());
    for name in ["1".to_owned(), digest.to_string()] {
        let answer = registry.get(&format!("/v2/towline/probe/manifests/{name}"));
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&digest.to_string()), "{answer}");
    }
    let layer = registry.get(&format!("/v2/towline/probe/blobs/{}", image.layers()[0].digest()));
    assert!(layer.starts_with("HTTP/1.1 200 ") && layer.len() > 3 << 20);
}

#[test]
fn layers_that_the_registry_has_are_not_sent_again() {
    let registry = Running::start();
    let connections = Rc::new(Cell::new(0));
    let (count, address) = (Rc::clone(&connections), registry.address);
    let client = Registry::through(address.to_string(), move || {
        count.set(count.get() + 1);
        TcpStream::connect(address)
    });
    client.push(&image(), &Reference::new("towline/probe", "1")).unwrap();
    let first = connections.replace(0);
    client.push(&image().trusting("certificate").unwrap(), &Reference::new("towline/probe", "2")).unwrap();
    // The layer is only asked for; the one on top and the configuration are asked for, begun and sent; the manifest.
    assert_eq!((first, connections.get()), (7, 8));
}

#[test]
fn what_the_registry_refuses_is_quoted() {
    let registry = Running::start();
    let folder = tempfile::tempdir().unwrap();
    let reference = Reference::new("towline/probe", "1");
    let layout = Layout::write(folder.path(), &image(), &reference).unwrap();
    let layer = &layout.image.layers()[0];
    fs::write(folder.path().join("blobs/sha256").join(layer.digest().hex()), vec![b'y'; layer.size() as usize])
        .unwrap();
    let refused = Registry::at(registry.address).push(&layout.image, &reference);
    let message = format!("{:#}", refused.unwrap_err());
    assert!(message.contains("towline/probe:1") && message.contains("DIGEST_INVALID"), "{message}");
}
