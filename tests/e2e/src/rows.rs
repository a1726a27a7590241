//! Rows of the walkthrough, one file a theme: each plays on a [`Tailnet`] or on a [`Stage`] and tells [`Checks`].

use anyhow::{Result, bail};
use lab::{Options, ScratchWorld};

use crate::{Arguments, Cast, Checks, Marks, Parts, Stage, Tailnet, binary};

mod administration;
mod api_server;
mod company;
mod connector;
mod credentials;
mod egress;
mod exit_node;
mod expose;
mod flows;
mod install;
mod joining;
mod leader;
mod leaving;
mod manifests;
mod network;
mod newcomer;
mod outage;
mod paths;
mod refusal;
mod removal;
mod restricted;
mod trouble;

/// What happens in each row of the walkthrough.
pub const TITLES: [&str; 17] = [
    "An administrator makes users, keys and OAuth clients, and sets a policy",
    "Devices join by a login and by a key, and see each other",
    "Helm installs the operator",
    "kubectl gets a context for the cluster behind the tailnet",
    "kubectl as the administrator: exec, attach, cp, port-forward, logs",
    "The same as the member: what RBAC gives, and no more",
    "A Service of the cluster comes to lead to a device",
    "A pod reaches the device by ping, SSH and HTTP",
    "A Connector offers four networks, approved by the policy",
    "The laptop reaches pods, Services and a printer through the Connector",
    "A ping goes directly through two NATs",
    "UDP is blocked: traffic goes by relay, and directly again afterwards",
    "Services of the cluster are exposed to the tailnet",
    "What flows through a device is told, by peer, port and bytes",
    "An exit node takes all of the laptop's traffic",
    "Everything is removed, and nothing stays",
    "Server, relay, leader and proxy are killed in turn; the rest goes on",
];

/// Rows, or parts of rows, that are played together.
pub struct Act {
    /// The rows of the walkthrough.
    rows: &'static [u8],
    /// Rows that must have been played before; on Kubernetes row 3 always is.
    needs: &'static [u8],
    /// Rows that it is played with where one of them is asked for itself, and not only needed by another.
    beside: &'static [u8],
    /// Why some cannot play it.
    excuse: Excuse,
    /// Plays them.
    play: Play,
}

/// Why a cast cannot play an act, where it can't.
type Excuse = fn(&Arguments) -> Option<&'static str>;

/// What an act is played on.
enum Play {
    /// A server without a policy, and two clients that nobody has let in.
    Founding(fn(&Tailnet, &mut Checks)),
    /// A tailnet with its policy, the laptop and robbinsdale.
    Settled(fn(&Tailnet, &mut Checks)),
    /// The same with Kubernetes beside it.
    Kubernetes(fn(&Stage, &mut Checks)),
}

use Play::{Founding, Kubernetes, Settled};

/// All acts, in the order in which they are played.
static ACTS: [Act; 20] = [
    act(&[1], Founding(administration::play)),
    act(&[2], Founding(joining::play)),
    act(&[11], Settled(network::play)),
    act(&[12, 17], Settled(paths::play)),
    act(&[17], Settled(outage::play)),
    // Beside the rows: what a device leaves of its computer's network, and of another daemon.
    act(&[], Settled(leaving::play)),
    act(&[], Settled(company::play)),
    act(&[3], Kubernetes(install::play)),
    act(&[4, 5, 6], Kubernetes(api_server::play)).unless(|arguments| api_server::excuse(&arguments.habits())),
    act(&[7, 8], Kubernetes(egress::play)),
    act(&[9, 10, 11], Kubernetes(connector::play)),
    act(&[14], Kubernetes(flows::play)).after(&[9]).unless(flows::excuse),
    act(&[13], Kubernetes(expose::play)),
    act(&[15], Kubernetes(exit_node::play)),
    act(&[17], Kubernetes(trouble::play)).after(&[7, 13]),
    act(&[17], Kubernetes(leader::play)).unless(|arguments| leader::excuse(&arguments.habits())),
    // Beside the rows: bad input, the server and a relay in the cluster, and what only the stock operator has yet.
    act(&[], Kubernetes(refusal::play)),
    act(&[], Kubernetes(manifests::play)).beside(&[3]).unless(|arguments| manifests::excuse(&arguments.habits())),
    act(&[], Kubernetes(credentials::play)).unless(|arguments| credentials::excuse(&arguments.habits())),
    act(&[16], Kubernetes(removal::play)).after(&[7, 9, 13, 15]),
];

const fn act(rows: &'static [u8], play: Play) -> Act {
    Act { rows, needs: &[], beside: &[], excuse: |_| None, play }
}

impl Act {
    const fn after(self, needs: &'static [u8]) -> Self {
        Self { needs, ..self }
    }

    const fn beside(self, beside: &'static [u8]) -> Self {
        Self { beside, ..self }
    }

    const fn unless(self, excuse: Excuse) -> Self {
        Self { excuse, ..self }
    }

    fn is_on_kubernetes(&self) -> bool {
        matches!(self.play, Kubernetes(_))
    }

    fn has_any(&self, rows: &[u8]) -> bool {
        self.rows.iter().any(|row| rows.contains(row))
    }
}

/// The acts that do without Kubernetes.
pub fn without_kubernetes() -> Vec<&'static Act> {
    ACTS.iter().filter(|act| !act.is_on_kubernetes()).collect()
}

/// The acts with the rows that were asked for, and what they need; all on Kubernetes when none was, as far as who plays can.
///
/// # Errors
/// When there is no such row, or who plays cannot play it.
pub fn chosen(arguments: &Arguments) -> Result<Vec<&'static Act>> {
    let can = |act: &&Act| (act.excuse)(arguments).is_none();
    if arguments.rows.is_empty() {
        return Ok(ACTS.iter().filter(|act| act.is_on_kubernetes()).filter(can).collect());
    }
    let mut wanted = arguments.rows.clone();
    for row in &arguments.rows {
        let acts: Vec<&Act> = ACTS.iter().filter(|act| act.rows.contains(row)).collect();
        let Some(first) = acts.first() else { bail!("there is no row {row}: the walkthrough has rows 1 to 17") };
        if !acts.iter().any(&can) {
            bail!("row {row} can't be played so: {}", (first.excuse)(arguments).unwrap_or_default());
        }
        let needed = acts.iter().copied().filter(can);
        for act in needed {
            wanted.extend(act.needs);
            wanted.extend(act.is_on_kubernetes().then_some(3));
        }
    }
    let asked = |act: &&Act| act.has_any(&wanted) || act.beside.iter().any(|row| arguments.rows.contains(row));
    Ok(ACTS.iter().filter(asked).filter(can).collect())
}

/// What of the rows that were asked for, or of all where none was, who plays cannot play, and why.
pub fn left_out(arguments: &Arguments) -> Vec<String> {
    let asked = |act: &&Act| arguments.rows.is_empty() && act.is_on_kubernetes() || act.has_any(&arguments.rows);
    let told = |act: &Act| {
        let rows: Vec<String> = act.rows.iter().map(u8::to_string).collect();
        let what = if rows.is_empty() { "beside the rows".to_owned() } else { format!("of row {}", rows.join(", ")) };
        (act.excuse)(arguments).map(|why| format!("a part {what} is left out: {why}"))
    };
    ACTS.iter().filter(asked).filter_map(told).collect()
}

/// Plays acts on a world of their own, as small as they allow.
///
/// # Errors
/// When there is nothing to play them with.
pub fn play(acts: &[&Act], cast: &Cast, checks: &mut Checks) -> Result<()> {
    let on_kubernetes = acts.iter().any(|act| act.is_on_kubernetes());
    let options = if on_kubernetes { Options::whole()? } else { Options::boxes()? };
    let title = "the world is up, with server, relays and clients";
    let founded = checks.timed(title, |marks| {
        let world = ScratchWorld::up_telling(options, &|event| Marks::show(&event))?;
        marks.reached("world after");
        let tailnet = Tailnet::found(&world, cast, &binary()?, &|event| marks.listen(&event))?;
        Ok((world, tailnet))
    });
    let Some((_world, tailnet)) = founded else { return Ok(()) };
    for act in acts {
        if let Founding(play) = act.play {
            play(&tailnet, checks);
        }
    }
    if acts.iter().all(|act| matches!(act.play, Founding(_))) {
        return Ok(());
    }
    let title = "the policy is in force, and two devices are in";
    let Some(()) = checks.timed(title, |marks| tailnet.settle(&|event| marks.listen(&event))) else { return Ok(()) };
    for act in acts {
        if let Settled(play) = act.play {
            play(&tailnet, checks);
        }
    }
    if on_kubernetes { on_stage(acts, tailnet, cast, checks) } else { Ok(()) }
}

fn on_stage(acts: &[&Act], tailnet: Tailnet, cast: &Cast, checks: &mut Checks) -> Result<()> {
    let parts = Parts::of_the_test()?;
    let title = "the images are in the cluster's registry";
    let stage = checks.timed(title, |marks| Stage::around(tailnet, cast, &parts, &|event| marks.listen(&event)));
    let Some(stage) = stage else { return Ok(()) };
    let failed = checks.failed();
    for (number, act) in acts.iter().filter(|act| act.is_on_kubernetes()).enumerate() {
        if let Kubernetes(play) = act.play {
            play(&stage, checks);
        }
        // Without an operator nothing else can go well.
        if number == 0 && checks.failed() > failed {
            break;
        }
    }
    if checks.failed() > failed {
        stage.tell();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Habits;

    fn arguments(words: &str) -> Arguments {
        Arguments::parse_from(std::iter::once("walkthrough").chain(words.split_whitespace()))
    }

    fn rows_of(words: &str) -> Vec<u8> {
        chosen(&arguments(words)).unwrap().iter().flat_map(|act| act.rows).copied().collect()
    }

    fn refusal(words: &str) -> String {
        chosen(&arguments(words)).err().unwrap().to_string()
    }

    #[test]
    fn a_row_comes_with_what_it_needs() {
        assert_eq!(rows_of("--row 8"), [3, 7, 8]);
        assert_eq!(rows_of("--row 17 --operator stock"), [12, 17, 17, 3, 7, 8, 13, 17]);
        assert_eq!(rows_of("--row 17 --operator towline"), [12, 17, 17, 3, 7, 8, 13, 17, 17]);
    }

    #[test]
    fn what_is_beside_a_row_is_played_where_the_row_itself_is_asked_for() {
        let acts = |words: &str| chosen(&arguments(words)).unwrap().len();
        assert_eq!(acts("--row 3 --operator towline"), 2);
        assert_eq!(acts("--row 3 --operator stock"), 1);
        // Row 13 needs row 3.
        assert_eq!((rows_of("--row 13 --operator towline").len(), acts("--row 13 --operator towline")), (2, 2));
    }

    #[test]
    fn what_is_left_out_of_a_row_is_told_with_the_reason() {
        let told = left_out(&arguments("--row 17 --operator stock"));
        let why = leader::excuse(&Habits::STOCK).unwrap();
        assert_eq!(told, [format!("a part of row 17 is left out: {why}")]);
        assert_eq!(left_out(&arguments("--row 17 --operator towline")), Vec::<String>::new());
        assert_eq!(left_out(&arguments("--operator towline --laptop towline")).len(), 1);
    }

    #[test]
    fn every_row_of_the_walkthrough_can_be_played_by_our_programs() {
        for row in 1..=17 {
            let played = rows_of(&format!("--row {row} --operator towline --laptop towline --robbinsdale towline"));
            assert!(played.contains(&row), "row {row}: {played:?}");
        }
    }

    #[test]
    fn rows_that_need_no_cluster_get_none() {
        for row in ["1", "2", "12"] {
            let acts = chosen(&arguments(&format!("--row {row}"))).unwrap();
            assert!(acts.iter().all(|act| !act.is_on_kubernetes()), "row {row}");
        }
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_the_reason() {
        assert_eq!(refusal("--row 99"), "there is no row 99: the walkthrough has rows 1 to 17");
        assert_eq!(refusal("--row 0"), "there is no row 0: the walkthrough has rows 1 to 17");
        assert!(refusal("--row 5 --operator stock").contains("--operator towline"));
        assert!(refusal("--row 14 --operator stock --laptop stock").contains("--laptop towline"));
        assert!(chosen(&arguments("--row 14 --operator stock --laptop towline")).is_ok());
    }

    #[test]
    fn the_readme_names_what_takes_our_operator() {
        let stock = arguments("--operator stock --laptop towline");
        let excused: Vec<u8> =
            ACTS.iter().filter(|act| (act.excuse)(&stock).is_some()).flat_map(|act| act.rows).copied().collect();
        assert_eq!(excused, [4, 5, 6, 17]);
        let parts = [Habits::STOCK.tells_flows, Habits::STOCK.leaves_in_order];
        assert_eq!(parts, [false; 2], "rows 14 and 16 are not played as a whole");
        let readme = include_str!("../../../README.md");
        let said = readme.lines().find(|line| line.contains("seventeen rows")).unwrap();
        for part in ["rows 4 to 6", "tells in row 14", "of row 16", "the leader in row 17"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn without_a_choice_every_act_is_played_by_one_program_or_the_other() {
        let ours = arguments("--operator towline --laptop towline");
        assert_eq!(without_kubernetes().len() + chosen(&ours).unwrap().len(), ACTS.len() - 1);
        // What is left needs the stock operator.
        assert!(chosen(&arguments("--operator stock")).unwrap().iter().any(|act| (act.excuse)(&ours).is_some()));
    }
}
