//! Auth keys, OAuth clients and tokens.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use tailnet::{
    Actor, ApiToken, Change, Command, KeyId, NewApiToken, NewAuthKey, NewOAuthClient, PasswordHash, Proof, RefusalKind,
    Reply, Role, SecretText, TokenHolder,
};

use crate::world::{World, auth_key, request, tagged_key};

fn scopes(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn client(scope_names: &[&str], tags: &[&str]) -> NewOAuthClient {
    NewOAuthClient {
        scopes: scopes(scope_names),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        description: "operator".to_owned(),
    }
}

fn token(holder: TokenHolder, scope_names: &[&str]) -> NewApiToken {
    NewApiToken { holder, scopes: scopes(scope_names), tags: vec![], lifetime: None, description: String::new() }
}

fn secret(reply: Reply) -> (KeyId, SecretText) {
    let Reply::Secret { id, text, .. } = reply else { panic!("a secret") };
    (id, text)
}

/// The operator's client and an access token of it.
fn operator(world: &mut World) -> (KeyId, SecretText) {
    let made = world.own(Command::CreateOAuthClient(client(&["devices:core", "auth_keys"], &["tag:k8s-operator"])));
    let (id, text) = secret(made);
    assert_eq!(world.home().authenticate_client(&text).unwrap().id, id);
    let asks = token(TokenHolder::Client(id.clone()), &["devices:core", "auth_keys"]);
    let (_, access) = secret(world.run(Actor::Server, Command::CreateApiToken(asks)).unwrap());
    (id, access)
}

#[test]
fn the_operators_client_makes_keys_for_its_tags_and_those_that_these_own() {
    let mut world = World::new();
    let (_, access) = operator(&mut world);
    let (_, actor) = world.home().authenticate(&access, world.now).unwrap();
    for tag in ["tag:k8s-operator", "tag:k8s"] {
        let made = world.run(actor.clone(), Command::CreateAuthKey(tagged_key(tag))).unwrap();
        let (_, key) = secret(made);
        let number = if tag == "tag:k8s" { 1 } else { 2 };
        world.join(number, "proxy", Proof::AuthKey(key));
    }
    let refusal = world.run(actor.clone(), Command::CreateAuthKey(tagged_key("tag:server"))).unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::Forbidden);
    assert!(refusal.to_string().contains("may not give tag:server: add them to its owners"), "{refusal}");
    let refusal = world.run(actor, Command::CreateAuthKey(auth_key())).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "an auth key of an OAuth client needs tags: name at least one that is in the policy's \"tagOwners\""
    );
}

#[test]
fn an_access_token_works_for_an_hour_and_ends_with_its_client() {
    let mut world = World::new();
    let (id, access) = operator(&mut world);
    assert!(world.home().authenticate(&access, world.now + SignedDuration::from_mins(59)).is_ok());
    let late = world.home().authenticate(&access, world.now + SignedDuration::from_mins(60)).unwrap_err().to_string();
    assert!(late.contains("expired on 2026-01-01T01:00:00Z: sign in again, or make a new one"), "{late}");
    world.own(Command::Revoke(id.clone()));
    let revoked = world.home().authenticate(&access, world.now).unwrap_err().to_string();
    assert!(revoked.ends_with("was revoked: ask an administrator for a new one"), "{revoked}");
    let asks = token(TokenHolder::Client(id), &[]);
    assert!(world.run(Actor::Server, Command::CreateApiToken(asks)).unwrap_err().to_string().contains("was revoked"));
}

#[test]
fn a_guessed_secret_learns_nothing() {
    let mut world = World::new();
    let (id, _) = operator(&mut world);
    let says = "this credential is not valid: check that it was copied whole, or ask an administrator for a new one";
    for text in [format!("tskey-api-{id}-x"), format!("tskey-client-{id}-x"), "x".to_owned(), String::new()] {
        let text = SecretText::new(text);
        assert_eq!(world.home().authenticate(&text, world.now).unwrap_err().to_string(), says);
        assert_eq!(world.home().authenticate_client(&text).unwrap_err().to_string(), says);
    }
}

#[test]
fn nothing_gives_more_than_it_has() {
    let mut world = World::new();
    let it = world.add_user("it@example.com", Role::NetworkAdmin);
    let refusal = world
        .run(Actor::User(it), Command::CreateApiToken(token(TokenHolder::User(it), &["users"])))
        .unwrap_err()
        .to_string();
    assert_eq!(refusal, "a user who is network-admin can't have the scope \"users\": leave it out");
    world.run(Actor::User(it), Command::CreateApiToken(token(TokenHolder::User(it), &["dns", "users:read"]))).unwrap();
    let owner = world.owner;
    let refusal =
        world.run(Actor::User(it), Command::CreateApiToken(token(TokenHolder::User(owner), &["dns"]))).unwrap_err();
    assert_eq!(refusal.kind(), RefusalKind::Forbidden, "a token of somebody else");
    let (id, _) = operator(&mut world);
    let beyond = token(TokenHolder::Client(id.clone()), &["policy_file"]);
    let refusal = world.run(Actor::Server, Command::CreateApiToken(beyond)).unwrap_err().to_string();
    assert_eq!(
        refusal,
        format!(
            "credential {id} does not have the scope \"policy_file\": leave it out, or make a credential that has it"
        )
    );
}

#[test]
fn a_token_may_have_fewer_tags_than_its_client_and_not_others() {
    let mut world = World::new();
    let made = world.own(Command::CreateOAuthClient(client(&["auth_keys"], &["tag:k8s-operator", "tag:server"])));
    let (id, _) = secret(made);
    let with = |tags: &[&str]| NewApiToken {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..token(TokenHolder::Client(id.clone()), &["auth_keys"])
    };
    let (_, text) = secret(world.run(Actor::Server, Command::CreateApiToken(with(&["tag:k8s"]))).unwrap());
    let (_, actor) = world.home().authenticate(&text, world.now).unwrap();
    assert!(world.run(actor, Command::CreateAuthKey(tagged_key("tag:server"))).is_err());
    assert!(world.run(Actor::Server, Command::CreateApiToken(with(&["tag:dev"]))).is_err());
}

#[test]
fn clients_that_make_devices_need_tags() {
    let mut world = World::new();
    let refusal = world.refused(Command::CreateOAuthClient(client(&["auth_keys"], &[])));
    assert!(refusal.starts_with("an OAuth client with the scope devices:core or auth_keys needs tags"), "{refusal}");
    world.own(Command::CreateOAuthClient(client(&["policy_file"], &[])));
}

#[test]
fn keys_live_ninety_days_at_most() {
    let mut world = World::new();
    for (days, good) in [(90, true), (91, false), (0, false), (-1, false)] {
        let lifetime = Some(SignedDuration::from_hours(24 * days));
        let made = world.run(Actor::User(world.owner), Command::CreateAuthKey(NewAuthKey { lifetime, ..auth_key() }));
        assert_eq!(made.is_ok(), good, "{days} days");
    }
}

#[test]
fn a_key_is_worth_what_its_maker_is() {
    let mut world = World::new();
    let admin = world.add_user("boss@example.com", Role::Admin);
    let (_, key) = secret(world.run(Actor::User(admin), Command::CreateAuthKey(tagged_key("tag:server"))).unwrap());
    world.own(Command::SuspendUser(admin));
    let refusal = world.register(1, request(1, "x"), Proof::AuthKey(key)).unwrap_err().to_string();
    assert!(refusal.contains("boss@example.com is suspended"), "{refusal}");
}

/// A client with two auth keys, with the first of which a device joined.
fn joined_by_client(world: &mut World) -> (KeyId, tailcfg::NodeId, [(KeyId, SecretText); 2]) {
    let (client, access) = operator(world);
    let (_, actor) = world.home().authenticate(&access, world.now).unwrap();
    let keys =
        [(); 2].map(|()| secret(world.run(actor.clone(), Command::CreateAuthKey(tagged_key("tag:k8s"))).unwrap()));
    let device = world.join(1, "proxy", Proof::AuthKey(keys[0].1.clone()));
    (client, device, keys)
}

#[test]
fn a_revoked_clients_keys_let_nobody_in_and_who_is_in_stays() {
    let mut world = World::new();
    let (client, device, [(_, used), (id, unused)]) = joined_by_client(&mut world);
    world.own(Command::Revoke(client));
    let refusal = world.register(2, request(2, "thief"), Proof::AuthKey(unused)).unwrap_err().to_string();
    assert_eq!(refusal, format!("auth key {id} was revoked: ask an administrator for a new one"));
    assert_eq!(world.home().auth_key(&id).unwrap().revoked, Some(world.now), "and it is listed so");
    assert_eq!(world.join(1, "proxy", Proof::AuthKey(used)), device);
    assert!(world.home().is_admitted(device));
}

#[test]
fn keys_of_a_client_that_was_revoked_when_its_keys_were_not_let_nobody_in() {
    let mut world = World::new();
    let (client, _, [_, (id, unused)]) = joined_by_client(&mut world);
    let (home, owner) = (world.home, world.owner);
    let mut decision = world.decide_in(home, Actor::User(owner), Command::Revoke(client.clone())).unwrap();
    decision.changes.retain(|change| !matches!(change, Change::PutAuthKey(_)));
    world.write(&decision);
    let says = format!("auth key {id} was revoked: ask an administrator for a new one");
    let refused = |world: &mut World| {
        world.register(2, request(2, "thief"), Proof::AuthKey(unused.clone())).unwrap_err().to_string()
    };
    assert_eq!(refused(&mut world), says);
    world.pass(SignedDuration::from_hours(24 * 31));
    world.run(Actor::Server, Command::Sweep).unwrap();
    assert!(world.home().oauth_client(&client).is_none(), "it is forgotten");
    assert_eq!(refused(&mut world), says);
}

#[test]
fn a_new_password_ends_old_tokens() {
    let mut world = World::new();
    let owner = world.owner;
    let (_, text) = secret(world.own(Command::CreateApiToken(token(TokenHolder::User(owner), &["all"]))));
    assert_eq!(world.home().authenticate(&text, world.now).unwrap().1, Actor::User(owner));
    world.own(Command::SetPassword(owner, PasswordHash("$argon2id$x".into())));
    assert!(world.home().authenticate(&text, world.now).is_err());
}

#[test]
fn what_is_long_dead_is_swept_and_what_is_not_stays() {
    let mut world = World::new();
    operator(&mut world);
    let key = world.make_key(auth_key());
    world.own(Command::Revoke(key.identify().unwrap().1));
    world.make_key(auth_key());
    world.pass(SignedDuration::from_hours(24 * 29));
    world.run(Actor::Server, Command::Sweep).unwrap();
    assert_eq!((world.home().auth_keys().count(), world.home().api_tokens().count()), (2, 0));
    world.pass(SignedDuration::from_hours(24 * 2));
    world.run(Actor::Server, Command::Sweep).unwrap();
    assert_eq!((world.home().auth_keys().count(), world.home().oauth_clients().count()), (1, 1));
}

#[test]
fn no_secret_is_kept() {
    let mut world = World::new();
    let key = world.make_key(auth_key());
    let (_, access) = operator(&mut world);
    let written = serde_json::to_string(&world.written.iter().map(|(_, change)| change).collect::<Vec<_>>()).unwrap();
    for text in [key, access] {
        assert!(!written.contains(text.expose()));
        assert!(!format!("{:?}", world.server).contains(text.expose()));
    }
}

/// Writes as many tokens more as the last one that was made, under other names.
fn many_like(world: &mut World, asks: NewApiToken, count: usize) {
    let home = world.home;
    let mut decision = world.decide_in(home, Actor::Server, Command::CreateApiToken(asks)).unwrap();
    let made = decision.changes.iter().find_map(|change| match change {
        Change::PutApiToken(made) => Some(made.clone()),
        _ => None,
    });
    let made = made.expect("a token");
    let copy = |number| ApiToken { id: KeyId(format!("{}{number}", made.id)), ..made.clone() };
    decision.changes.extend((1..count).map(|number| Change::PutApiToken(copy(number))));
    world.write(&decision);
}

#[test]
fn programs_fill_their_own_room_and_people_sign_in_all_the_same() {
    let mut world = World::new();
    let owner = world.owner;
    let mut clients = Vec::new();
    for _ in 0..11 {
        let (id, _) = secret(world.own(Command::CreateOAuthClient(client(&["dns"], &[]))));
        clients.push(TokenHolder::Client(id));
    }
    let asks = |holder: &TokenHolder| token(holder.clone(), &["dns"]);
    let refused = |world: &mut World, asks| {
        let refusal = world.run(Actor::Server, Command::CreateApiToken(asks)).unwrap_err();
        assert_eq!(refusal.kind(), RefusalKind::Conflict);
        refusal.to_string()
    };
    many_like(&mut world, asks(&clients[0]), 1000);
    let refusal = refused(&mut world, asks(&clients[0]));
    assert!(refusal.starts_with("OAuth client k") && refusal.contains(" has 1000 tokens that still work"), "{refusal}");
    clients[1..10].iter().for_each(|client| many_like(&mut world, asks(client), 1000));
    let refusal = refused(&mut world, asks(&clients[10]));
    assert!(refusal.starts_with("the programs of this tailnet together has 10000 tokens"), "{refusal}");

    let person = world.add_user("it@example.com", Role::ItAdmin);
    many_like(&mut world, token(TokenHolder::User(person), &["users"]), 1000);
    assert!(refused(&mut world, token(TokenHolder::User(person), &["users"])).starts_with("it@example.com has 1000"));
    world.own(Command::CreateApiToken(token(TokenHolder::User(owner), &["all"])));

    world.pass(SignedDuration::from_hours(1));
    world.run(Actor::Server, Command::CreateApiToken(asks(&clients[0]))).unwrap();
}

#[test]
fn what_no_longer_works_takes_bounded_room_and_the_oldest_goes() {
    let mut world = World::new();
    let (id, _) = secret(world.own(Command::CreateOAuthClient(client(&["dns"], &[]))));
    let asks = || token(TokenHolder::Client(id.clone()), &["dns"]);
    many_like(&mut world, asks(), 1);
    let oldest = world.home().api_tokens().next().unwrap().id.clone();
    world.pass(SignedDuration::from_mins(1));
    many_like(&mut world, asks(), 999);
    world.pass(SignedDuration::from_hours(1));
    many_like(&mut world, asks(), 1);
    assert_eq!(world.home().api_tokens().count(), 1000);
    assert!(world.home().api_token(&oldest).is_none());
}

#[test]
fn keys_that_ended_long_ago_are_swept_although_no_device_goes() {
    let mut world = World::new();
    world.make_key(NewAuthKey { lifetime: Some(SignedDuration::from_hours(1)), ..auth_key() });
    world.make_key(auth_key());
    let at = world.home().poll_sweep().unwrap();
    assert!(at.duration_since(world.now) > SignedDuration::from_hours(24 * 30));
    world.now = at;
    world.run(Actor::Server, Command::Sweep).unwrap();
    assert_eq!(world.home().auth_keys().count(), 1);
    assert!(world.home().poll_sweep().unwrap() > at);
}
