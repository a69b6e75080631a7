//! The other side: a Python process that has matrix-synapse.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use hearth_event::RoomVersion;
use serde_json::{Value, json};

/// The answers to `requests`, in their order.
pub(crate) fn ask(requests: impl Iterator<Item = Value>) -> Vec<Value> {
    let script = hearth_test_harness::root().join("tests/oracle/synapse_oracle.py");
    let mut child = Command::new(hearth_test_harness::synapse_python())
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the Python of matrix-synapse starts");
    let mut input = child.stdin.take().expect("stdin is piped");
    let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
    // The answers are read on another thread, so that neither side waits for a full pipe.
    let reader = std::thread::spawn(move || {
        output.lines().map(|line| serde_json::from_str(&line.expect("the answers are text"))).collect()
    });
    let mut asked = 0_usize;
    for (id, mut request) in requests.enumerate() {
        request["id"] = json!(id);
        let mut line = serde_json::to_vec(&request).expect("a value is JSON");
        line.push(b'\n');
        input.write_all(&line).expect("the other side reads its questions; is matrix-synapse installed?");
        asked += 1;
    }
    drop(input);
    let answers: Result<Vec<Value>, _> = reader.join().expect("the reader does not panic");
    let answers = answers.expect("the answers are JSON");
    assert!(child.wait().expect("the process ends").success(), "the other side failed");
    assert_eq!(answers.len(), asked, "every question has an answer");
    answers
}

/// An answer in the shape of ours: whether something is an error, not which.
pub(crate) fn normalise(answer: &Value, version: RoomVersion) -> Value {
    if answer.get("err").is_some() {
        return json!({ "err": true });
    }
    let mut answer = answer.clone();
    let fields = answer.as_object_mut().expect("an answer is an object");
    fields.remove("id");
    fields.remove("format");
    for verdict in ["independent", "dependent"] {
        if let Some(value) = fields.get_mut(verdict) {
            *value = Value::Bool(value.is_null());
        }
    }
    match fields.get_mut("auth_types") {
        Some(types) if types.is_string() => *types = Value::Null,
        // They name the create event for their own look-up; from version 12 on it is no auth event.
        Some(Value::Array(types)) if version.as_str() == "12" => types.retain(|key| key[0] != "m.room.create"),
        _ => {}
    }
    answer
}
