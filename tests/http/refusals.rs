//! Wrong requests: the specification's status and error code, and nothing stored.

use hearth_test_harness::{Api, Config, Server, User, pct};
use reqwest::Method;
use serde_json::{Value, json};

use crate::BINARY;

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum By {
    /// A member of the room, its creator.
    Alice,
    /// A user who is in no room.
    Bob,
    /// Somebody with a token that was never given out.
    Stranger,
    /// Somebody without a token.
    Nobody,
}

/// A request and the answers that the specification leaves to it: status and error code.
struct Row {
    name: &'static str,
    by: By,
    method: Method,
    path: String,
    body: Vec<u8>,
    wanted: &'static [(u16, &'static str)],
}

const NOT_JSON: &[(u16, &str)] = &[(400, "M_NOT_JSON")];
/// JSON, but not of the shape that is wanted.
const BAD_JSON: &[(u16, &str)] = &[(400, "M_BAD_JSON")];
/// Parsers differ in which of these a wrong parameter is.
const BAD_PARAM: &[(u16, &str)] =
    &[(400, "M_INVALID_PARAM"), (400, "M_BAD_JSON"), (400, "M_MISSING_PARAM"), (400, "M_UNKNOWN")];
const FORBIDDEN: &[(u16, &str)] = &[(403, "M_FORBIDDEN")];
const NOT_FOUND: &[(u16, &str)] = &[(404, "M_NOT_FOUND")];
const TOO_LARGE: &[(u16, &str)] = &[(413, "M_TOO_LARGE")];
const UNRECOGNIZED: &[(u16, &str)] = &[(404, "M_UNRECOGNIZED")];
const WRONG_METHOD: &[(u16, &str)] = &[(405, "M_UNRECOGNIZED")];

/// The scene in which the rows are asked.
struct Scene {
    alice: User,
    bob: User,
    room: String,
    event: String,
}

#[tokio::test]
async fn refused_requests_get_their_error_and_store_nothing() {
    let server = Server::start(BINARY, &Config::open()).await;
    let api = server.api();
    let scene = Scene::set(api).await;
    let before = everything_of(api, &scene.alice).await;
    let since = before["next_batch"].as_str().expect("a sync has a next_batch").to_owned();

    let mut wrong = Vec::new();
    for row in
        bodies(&scene).into_iter().chain(tokens(&scene)).chain(rooms(&scene)).chain(accounts(&scene)).chain(paths())
    {
        let mut request = api.request(row.method.clone(), &row.path);
        request = match row.by {
            By::Alice => request.by(&scene.alice),
            By::Bob => request.by(&scene.bob),
            By::Stranger => request.token("syt_nobody_has_this_token"),
            By::Nobody => request,
        };
        if !row.body.is_empty() {
            request = request.text(row.body.clone());
        }
        let answer = request.send().await;
        if !row.wanted.contains(&(answer.status, answer.errcode())) {
            let text: String = answer.text.chars().take(200).collect();
            wrong.push(format!("{} ({:?}): wanted {:?}, got {} {text}", row.name, row.by, row.wanted, answer.status));
        } else if answer.body["error"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!("{}: no words for people: {}", row.name, answer.text));
        }
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));

    let path = format!("/_matrix/client/v3/sync?timeout=0&since={}", pct(&since));
    let news = api.get(&path).by(&scene.alice).ok().await;
    assert!(news["rooms"]["join"].as_object().is_none_or(serde_json::Map::is_empty), "something was stored: {news}");
    assert!(news["account_data"]["events"].as_array().is_none_or(Vec::is_empty), "something was stored: {news}");
    let after = everything_of(api, &scene.alice).await;
    assert_eq!(ageless(before["rooms"].clone()), ageless(after["rooms"].clone()), "the initial sync is another one");
    let bob = everything_of(api, &scene.bob).await;
    assert!(bob["rooms"]["join"].as_object().is_none_or(serde_json::Map::is_empty), "Bob got into a room: {bob}");
    assert!(!server.log().contains("panicked"), "a handler panicked:\n{}", server.log());
}

async fn everything_of(api: &Api, user: &User) -> Value {
    api.get("/_matrix/client/v3/sync?timeout=0").by(user).ok().await
}

/// The same without the events' `age`, which is the only thing that time changes.
fn ageless(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("age");
            fields.values_mut().for_each(|field| *field = ageless(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = ageless(item.take())),
        _ => {}
    }
    value
}

impl Scene {
    async fn set(api: &Api) -> Self {
        let alice = api.register("alice", "correct horse").await.unwrap_or_else(|other| panic!("{other}"));
        let bob = api.register("bob", "correct horse").await.unwrap_or_else(|other| panic!("{other}"));
        let body = json!({"preset": "private_chat", "room_alias_name": "garden"});
        let made = api.post("/_matrix/client/v3/createRoom").by(&alice).json(&body).ok().await;
        let room = made["room_id"].as_str().expect("createRoom gives a room").to_owned();
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/first", pct(&room));
        let sent = api.put(&path).by(&alice).json(&json!({"msgtype": "m.text", "body": "hello"})).ok().await;
        let event = sent["event_id"].as_str().expect("a send gives an event").to_owned();
        Self { alice, bob, room, event }
    }

    /// A path in the room.
    fn room(&self, rest: &str) -> String {
        format!("/_matrix/client/v3/rooms/{}/{rest}", pct(&self.room))
    }

    /// A path of Alice's.
    fn alice(&self, rest: &str) -> String {
        format!("/_matrix/client/v3/user/{}/{rest}", pct(&self.alice.id))
    }
}

/// Shorthand for a row.
fn row(
    name: &'static str,
    by: By,
    (method, path): (Method, String),
    body: impl AsRef<[u8]>,
    wanted: &'static [(u16, &'static str)],
) -> Row {
    Row { name, by, method, path, body: body.as_ref().to_vec(), wanted }
}

fn get(path: impl Into<String>) -> (Method, String) {
    (Method::GET, path.into())
}

fn put(path: impl Into<String>) -> (Method, String) {
    (Method::PUT, path.into())
}

fn post(path: impl Into<String>) -> (Method, String) {
    (Method::POST, path.into())
}

fn client(path: &str) -> String {
    format!("/_matrix/client/v3/{path}")
}

/// Bodies that are no JSON, or not the JSON that is wanted.
fn bodies(scene: &Scene) -> Vec<Row> {
    let send = || put(scene.room("send/m.room.message/wrong"));
    let create = || post(client("createRoom"));
    let long = json!({"msgtype": "m.text", "body": "x".repeat(70_000)}).to_string();
    let huge = json!({"msgtype": "m.text", "body": "x".repeat(400_000)}).to_string();
    let message = |n: &str| format!("{{\"msgtype\":\"m.text\",\"body\":\"x\",\"n\":{n}}}");
    let deep = message(&format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000)));
    let deepish = message(&format!("{}1{}", "[".repeat(200), "]".repeat(200)));
    vec![
        row("half an object", By::Alice, send(), "{\"msgtype\":", NOT_JSON),
        row("words", By::Alice, send(), "hello", NOT_JSON),
        row("bytes that are no UTF-8", By::Alice, send(), b"{\"body\":\"\xff\xfe\"}", NOT_JSON),
        row("something after the object", By::Alice, send(), "{} {}", NOT_JSON),
        row("an array for an object", By::Alice, send(), "[]", &[(400, "M_BAD_JSON"), (400, "M_NOT_JSON")]),
        row("a fraction in an event", By::Alice, send(), message("1.5"), BAD_JSON),
        row("an integer out of range", By::Alice, send(), message("9007199254740993"), BAD_JSON),
        row("nesting far too deep", By::Alice, send(), &deep, &[(400, "M_BAD_JSON"), (400, "M_NOT_JSON")]),
        row("nesting a little too deep", By::Alice, send(), &deepish, &[(400, "M_BAD_JSON"), (400, "M_NOT_JSON")]),
        row("an event above 64 KiB", By::Alice, send(), &long, TOO_LARGE),
        row("a body above the limit", By::Alice, send(), &huge, TOO_LARGE),
        row("a name that is a number", By::Alice, create(), "{\"name\":5}", BAD_JSON),
        row("an invite that is no list", By::Alice, create(), "{\"invite\":\"x\"}", BAD_JSON),
        row("an invite that is no user", By::Alice, create(), "{\"invite\":[\"bob\"]}", BAD_PARAM),
        row(
            "an unknown room version",
            By::Alice,
            create(),
            "{\"room_version\":\"99\"}",
            &[(400, "M_UNSUPPORTED_ROOM_VERSION")],
        ),
        row("a taken alias", By::Alice, create(), "{\"room_alias_name\":\"garden\"}", &[(400, "M_ROOM_IN_USE")]),
        row("a login without a type", By::Nobody, post(client("login")), "{}", BAD_PARAM),
        row("a login of an unknown type", By::Nobody, post(client("login")), "{\"type\":\"m.nothing\"}", BAD_PARAM),
        row("account data that is a list", By::Alice, put(scene.alice("account_data/x.y")), "[1]", BAD_JSON),
        row("a display name that is a list", By::Alice, put(profile(&scene.alice)), "{\"displayname\":[]}", BAD_JSON),
        row("typing without a word", By::Alice, put(typing(scene, &scene.alice)), "{}", BAD_PARAM),
    ]
}

fn profile(user: &User) -> String {
    client(&format!("profile/{}/displayname", pct(&user.id)))
}

fn typing(scene: &Scene, user: &User) -> String {
    scene.room(&format!("typing/{}", pct(&user.id)))
}

/// Tokens that are missing or were never given out.
fn tokens(scene: &Scene) -> Vec<Row> {
    const UNKNOWN: &[(u16, &str)] = &[(401, "M_UNKNOWN_TOKEN")];
    const MISSING: &[(u16, &str)] = &[(401, "M_MISSING_TOKEN")];
    let send = || put(scene.room("send/m.room.message/wrong"));
    vec![
        row("whoami", By::Nobody, get(client("account/whoami")), "", MISSING),
        row("whoami", By::Stranger, get(client("account/whoami")), "", UNKNOWN),
        row("sync", By::Nobody, get(client("sync")), "", MISSING),
        row("sync", By::Stranger, get(client("sync")), "", UNKNOWN),
        row("send", By::Nobody, send(), "{}", MISSING),
        row("send", By::Stranger, send(), "{}", UNKNOWN),
        row("createRoom", By::Nobody, post(client("createRoom")), "{}", MISSING),
        row("logout", By::Stranger, post(client("logout")), "{}", UNKNOWN),
        // The error of the token comes before that of the body.
        row("a wrong body of a stranger", By::Stranger, send(), "{\"n\":", UNKNOWN),
    ]
}

/// Actions in rooms that are unknown, foreign, or beyond one's power.
fn rooms(scene: &Scene) -> Vec<Row> {
    let unknown = |rest: &str| client(&format!("rooms/{}/{rest}", pct("!unknown:hearth.test")));
    let event = pct(&scene.event);
    let user = |user: &User| json!({"user_id": user.id}).to_string();
    let message = "{\"msgtype\":\"m.text\",\"body\":\"let me in\"}";
    vec![
        row("send to an unknown room", By::Alice, put(unknown("send/m.room.message/x")), message, FORBIDDEN),
        row("state of an unknown room", By::Alice, get(unknown("state")), "", FORBIDDEN),
        row("messages of an unknown room", By::Alice, get(unknown("messages?dir=b")), "", FORBIDDEN),
        row("send from outside", By::Bob, put(scene.room("send/m.room.message/x")), message, FORBIDDEN),
        row("state from outside", By::Bob, get(scene.room("state")), "", FORBIDDEN),
        row("messages from outside", By::Bob, get(scene.room("messages?dir=b")), "", FORBIDDEN),
        row("members from outside", By::Bob, get(scene.room("members")), "", FORBIDDEN),
        row("an event from outside", By::Bob, get(scene.room(&format!("event/{event}"))), "", NOT_FOUND_OR_FORBIDDEN),
        row("a join without an invite", By::Bob, post(scene.room("join")), "{}", FORBIDDEN),
        row("an invite from outside", By::Bob, post(scene.room("invite")), user(&scene.bob), FORBIDDEN),
        row("a kick from outside", By::Bob, post(scene.room("kick")), user(&scene.alice), FORBIDDEN),
        row("a ban from outside", By::Bob, post(scene.room("ban")), user(&scene.alice), FORBIDDEN),
        row("a name from outside", By::Bob, put(scene.room("state/m.room.name")), "{\"name\":\"x\"}", FORBIDDEN),
        row("a redaction from outside", By::Bob, put(scene.room(&format!("redact/{event}/x"))), "{}", FORBIDDEN),
        row("typing from outside", By::Bob, put(typing(scene, &scene.bob)), "{\"typing\":false}", FORBIDDEN),
        row("typing for another", By::Alice, put(typing(scene, &scene.bob)), "{\"typing\":false}", FORBIDDEN),
        row("an invite of a member", By::Alice, post(scene.room("invite")), user(&scene.alice), FORBIDDEN),
        row("a second create event", By::Alice, put(scene.room("state/m.room.create")), "{}", FORBIDDEN_OR_BAD),
        row("another's state key", By::Alice, put(scene.room("state/x.y/@bob:hearth.test")), "{}", FORBIDDEN),
        row("an unknown event", By::Alice, get(scene.room("event/$unknown")), "", NOT_FOUND),
        row("state that is not there", By::Alice, get(scene.room("state/x.y/nothing")), "", NOT_FOUND),
        row("an unknown alias", By::Alice, get(client("directory/room/%23unknown:hearth.test")), "", NOT_FOUND),
        row("no direction", By::Alice, get(scene.room("messages?dir=sideways")), "", BAD_PARAM),
        row("a limit that is no number", By::Alice, get(scene.room("messages?dir=b&limit=many")), "", BAD_PARAM),
        row("a made-up page", By::Alice, get(scene.room("messages?dir=b&from=nonsense")), "", BAD_PARAM),
        row("an unknown receipt", By::Alice, post(scene.room(&format!("receipt/m.unknown/{event}"))), "{}", BAD_PARAM),
    ]
}

const NOT_FOUND_OR_FORBIDDEN: &[(u16, &str)] = &[(404, "M_NOT_FOUND"), (403, "M_FORBIDDEN")];
const FORBIDDEN_OR_BAD: &[(u16, &str)] = &[(403, "M_FORBIDDEN"), (400, "M_BAD_JSON")];

/// Accounts: names, passwords, others' data, what is the server's.
fn accounts(scene: &Scene) -> Vec<Row> {
    const SERVERS: &[(u16, &str)] = &[(405, "M_BAD_JSON")];
    let login = |user: &str, password: &str| {
        json!({"type": "m.login.password", "password": password, "identifier": {"type": "m.id.user", "user": user}})
            .to_string()
    };
    let register = |name: &str| json!({"username": name, "password": "correct horse"}).to_string();
    let of_bob = |rest: &str| client(&format!("user/{}/{rest}", pct(&scene.bob.id)));
    vec![
        row("a wrong password", By::Nobody, post(client("login")), login("alice", "wrong"), FORBIDDEN),
        row("an unknown user", By::Nobody, post(client("login")), login("nobody", "wrong"), FORBIDDEN),
        row("a taken name", By::Nobody, post(client("register")), register("alice"), &[(400, "M_USER_IN_USE")]),
        row("a wrong name", By::Nobody, post(client("register")), register("a b!"), &[(400, "M_INVALID_USERNAME")]),
        row(
            "a taken name, asked first",
            By::Nobody,
            get(client("register/available?username=alice")),
            "",
            &[(400, "M_USER_IN_USE")],
        ),
        row("an unknown profile", By::Alice, get(client("profile/@nobody:hearth.test")), "", NOT_FOUND),
        row("another's display name", By::Alice, put(profile(&scene.bob)), "{\"displayname\":\"x\"}", FORBIDDEN),
        row("account data that is not there", By::Alice, get(scene.alice("account_data/x.y")), "", NOT_FOUND),
        row("another's account data", By::Alice, put(of_bob("account_data/x.y")), "{}", FORBIDDEN),
        row("another's account data, read", By::Alice, get(of_bob("account_data/x.y")), "", FORBIDDEN),
        row("push rules as account data", By::Alice, put(scene.alice("account_data/m.push_rules")), "{}", SERVERS),
        row("the read marker as account data", By::Alice, put(fully_read(scene)), "{}", SERVERS),
        row("an unknown filter", By::Alice, get(scene.alice("filter/999")), "", NOT_FOUND),
        row("another's filters", By::Alice, post(of_bob("filter")), "{}", FORBIDDEN),
        row("a made-up token", By::Alice, get(client("sync?timeout=0&since=nonsense")), "", BAD_PARAM),
        row(
            "half a filter",
            By::Alice,
            get(client("sync?timeout=0&filter=%7B%22room")),
            "",
            &[(400, "M_NOT_JSON"), (400, "M_BAD_JSON"), (400, "M_INVALID_PARAM")],
        ),
        row("an unknown device", By::Alice, get(client("devices/NOTTHERE")), "", NOT_FOUND),
    ]
}

fn fully_read(scene: &Scene) -> String {
    scene.alice(&format!("rooms/{}/account_data/m.fully_read", pct(&scene.room)))
}

/// Paths and methods that the specification does not have.
fn paths() -> Vec<Row> {
    vec![
        row("an unknown endpoint", By::Alice, get(client("nothing")), "", UNRECOGNIZED),
        row("an unknown version", By::Alice, get("/_matrix/client/v99/sync"), "", UNRECOGNIZED),
        row("an unknown API", By::Nobody, get("/_matrix/nothing"), "", UNRECOGNIZED),
        row("nothing of Matrix", By::Nobody, get("/wp-login.php"), "", UNRECOGNIZED),
        row("DELETE of login", By::Nobody, (Method::DELETE, client("login")), "", WRONG_METHOD),
        row("PATCH of a room", By::Alice, (Method::PATCH, client("createRoom")), "{}", WRONG_METHOD),
        row("POST of sync", By::Alice, post(client("sync")), "{}", WRONG_METHOD),
    ]
}
