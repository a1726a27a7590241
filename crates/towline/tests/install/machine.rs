//! A machine to install on: files and a network of its own, on the machine of the test. It ends with the test.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cache::Cache;
use tempfile::TempDir;

use crate::unit::Unit;

/// How long anything may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a shell in namespaces of its own does to make the machine; behind it, the folder of the test.
const MAKE: &str = r#"
"$0/bin/ip" link set lo up
mkdir "$0/etc"
cp -a /etc/. "$0/etc"
mount --bind "$0/etc" /etc
mount --bind "$0/bin" /usr/local/bin
mount -t tmpfs -o mode=755 towline-test /var/lib
mount -t tmpfs -o mode=755 towline-test /run
echo made
read _
"#;

/// A process that holds the namespaces open, and the folder that root works in.
pub(crate) struct Machine {
    holder: Child,
    folder: TempDir,
}

impl Machine {
    /// Makes one, with the binary, `deploy` and certificates of a server and a relay in root's folder.
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        symlink(env!("CARGO_BIN_EXE_towline"), folder.path().join("towline")).unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").canonicalize().unwrap();
        symlink(deploy, folder.path().join("deploy")).unwrap();
        for name in ["control", "relay"] {
            let made = rcgen::generate_simple_self_signed(vec![format!("{name}.example.com")]).unwrap();
            fs::write(folder.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        }
        lend_programs(&folder.path().join("bin"));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--propagation=private", "sh", "-ec", MAKE]).arg(folder.path());
        let mut holder = clean(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        holder.stdout.as_mut().unwrap().read_exact(&mut said).expect("the namespaces need root");
        assert_eq!(&said, b"made\n");
        Self { holder, folder }
    }

    /// Types a line as root, in the folder.
    pub(crate) fn types(&self, line: &str) -> String {
        let output = self.sh(&format!("cd {}\n{line}", self.folder.path().display()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{line}\n{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Plays steps of the guide; returns the services that they start at their end.
    pub(crate) fn plays(&self, steps: &[String]) -> Vec<String> {
        let mut services = Vec::new();
        for step in steps {
            match step.strip_prefix("systemctl enable --now ") {
                Some(service) => services.push(service.to_owned()),
                None => drop(self.types(step)),
            }
        }
        services
    }

    /// Starts a service, as systemd does by the settings of its unit that are about users, files and rights.
    pub(crate) fn starts(&self, service: &str) -> Service {
        let path = format!("/proc/{}/root/etc/systemd/system/{service}.service", self.holder.id());
        let unit = Unit::parse(&fs::read_to_string(path).unwrap());
        let log = self.folder.path().join(format!("{service}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = self.command("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-ec", &script(&unit)]);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Service { child: command.spawn().unwrap(), log }
    }

    /// What the machine answers itself at a port, or nothing.
    pub(crate) fn answers(&self, port: u16, path: &str) -> Option<String> {
        let ask = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}\n\
             printf 'GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3\ncat <&3"
        );
        let output = self.command("bash").args(["-ec", &ask]).stderr(Stdio::null()).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A file of the machine, as the test sees it.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder.id()))
    }

    fn sh(&self, script: &str) -> Output {
        self.command("sh").args(["-ec", script]).output().unwrap()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let namespaces = format!("/proc/{}/ns", self.holder.id());
        command.args([format!("--mount={namespaces}/mnt"), format!("--net={namespaces}/net")]).arg(program);
        clean(command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A service that runs until this is dropped, and what it writes.
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Waits until `look` finds what it looks for; the service must not end meanwhile.
    pub(crate) fn until(&mut self, what: &str, mut look: impl FnMut() -> bool) {
        let began = Instant::now();
        while !look() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?} before {what}:\n{}", self.log());
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}:\n{}", self.log());
            // tidy: sleep, another process tells nobody when it is ready
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it has ended by itself, as it must not well; returns what it said.
    pub(crate) fn fails(mut self) -> String {
        assert!(!self.child.wait().unwrap().success(), "{}", self.log());
        self.log()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts scripts into a folder that run programs of the Debian tree by its own loader: the machine of the test need not have
/// them.
fn lend_programs(folder: &Path) {
    let tree = Cache::locate().unwrap().root().join("tree").canonicalize();
    let tree = tree.expect("there is no Debian tree: run `cargo xtask fetch`");
    let tree = tree.display();
    fs::create_dir(folder).unwrap();
    for name in ["ip", "systemd-sysusers"] {
        let script = format!(
            "#!/bin/sh\nexec {tree}/lib64/ld-linux-x86-64.so.2 --library-path {tree}/usr/lib/x86_64-linux-gnu \
             {tree}/usr/bin/{name} \"$@\"\n"
        );
        let path = folder.join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
}

/// Takes the settings of whoever runs the test from a command.
fn clean(mut command: Command) -> Command {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    command.env_clear().env("PATH", path).current_dir("/").stdin(Stdio::null());
    command
}

/// What systemd does for a service before it becomes the service's program: see systemd.exec(5).
fn script(unit: &Unit) -> String {
    let user = unit.one("User").unwrap_or("root");
    let owner = format!("{user}:{}", unit.one("Group").unwrap_or("root"));
    let mut script = String::from("umask 022\n");
    for folder in unit.state_folders() {
        let mode = unit.one("StateDirectoryMode").unwrap_or("0755");
        // Those above are made for everybody. What is in it changes its owner with it, and only then.
        script += &format!("mkdir -p {folder}\n[ $(stat -c %U:%G {folder}) = {owner} ] || chown -R {owner} {folder}\n");
        script += &format!("chmod {mode} {folder}\n");
    }
    for folder in unit.words("RuntimeDirectory") {
        script += &format!("mkdir -p /run/{folder}\nchown {owner} /run/{folder}\n");
    }
    if unit.one("ProtectHome") == Some("yes") {
        script += "for home in /root /home; do mount -t tmpfs -o mode=000 towline-test $home; done\n";
    }
    if let Some(file) = unit.one("EnvironmentFile") {
        script += &format!("set -a\n. {file}\nset +a\n");
    }
    script += &format!("umask {}\n", unit.one("UMask").unwrap_or("0022"));
    let list = |setting: &str| {
        let named = unit.words(setting).into_iter().filter_map(|name| name.strip_prefix("CAP_"));
        named.fold("-all".to_owned(), |list, name| format!("{list},+{}", name.to_lowercase()))
    };
    let (ambient, bounding) = (list("AmbientCapabilities"), list("CapabilityBoundingSet"));
    let (user, group) = owner.split_once(':').unwrap();
    script
        + &format!(
            "exec setpriv --reuid {user} --regid {group} --init-groups --no-new-privs --inh-caps={ambient} \
             --ambient-caps={ambient} --bounding-set={bounding} -- {}\n",
            unit.one("ExecStart").unwrap()
        )
}
