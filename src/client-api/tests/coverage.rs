//! The routes against the tables of `tests/coverage`: what the specification has, which test asks it, and what is
//! not served yet.
//!
//! An endpoint cannot be forgotten: one that is neither served nor listed as missing fails here, and so does one
//! that is listed as missing and served, one that no test asks, and a test that is gone. What servers ask each other
//! is held against the routes by the tests of the server API.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;

const SPEC: &str = include_str!("../../../tests/coverage/spec.tsv");
const TESTED: &str = include_str!("../../../tests/coverage/tested.tsv");
const ABSENT: &str = include_str!("../../../tests/coverage/absent.tsv");

/// A line: a method, a path with its parameters in braces, and what the table says of them.
struct Row<'t> {
    method: &'t str,
    path: &'t str,
    about: &'t str,
}

fn rows(table: &str) -> Vec<Row<'_>> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(row).filter(|row| !is_for_servers(row.path)).collect()
}

/// The server API serves it; what services ask is ours, whatever the path is called.
fn is_for_servers(path: &str) -> bool {
    let prefixes = ["/_matrix/federation/", "/_matrix/key/", "/_matrix/policy/"];
    prefixes.iter().any(|prefix| path.starts_with(prefix)) && !path.ends_with("/openid/userinfo")
}

fn row(line: &str) -> Row<'_> {
    let columns: Vec<&str> = line.split('\t').collect();
    let [method, path, about] = columns[..] else { panic!("no row of three columns: {line}") };
    Row { method, path, about }
}

/// The methods and the path of every route.
async fn served(world: &World) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    for path in crate::routes::paths() {
        all.extend(methods(world, &path).await.into_iter().map(|method| (method, path.clone())));
    }
    all
}

/// What a path takes, as the answer to a method that nothing takes tells it.
pub(super) async fn methods(world: &World, path: &str) -> Vec<String> {
    let answer = world.raw(Method::TRACE, &concrete(path), None, "").await;
    match answer.status {
        StatusCode::NOT_FOUND => Vec::new(),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = answer.headers[header::ALLOW].to_str().unwrap().to_owned();
            allowed.split(',').filter(|method| *method != "HEAD").map(str::to_owned).collect()
        }
        other => panic!("{other} for TRACE {path}"),
    }
}

/// The path with something for every parameter.
fn concrete(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
    segments.join("/")
}

/// Whether the requests for `path` reach `route`: both have their parameters in braces, and a
/// parameter of the route takes anything.
fn reaches(path: &str, route: &str) -> bool {
    let (path, route): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), route.split('/').collect());
    path.len() == route.len() && path.iter().zip(&route).all(|(theirs, ours)| ours.starts_with('{') || theirs == ours)
}

#[tokio::test]
async fn every_endpoint_of_the_specification_is_served_or_listed_as_missing() {
    let world = World::new();
    let absent: BTreeSet<_> = rows(ABSENT).iter().map(|row| (row.method, row.path)).collect();
    let tested: BTreeSet<_> = rows(TESTED).iter().map(|row| (row.method, row.path)).collect();
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for Row { method, path, .. } in rows(SPEC) {
        known.insert((method, path));
        let is_served = methods(&world, path).await.iter().any(|served| served == method);
        let key = (method, path);
        match (is_served, absent.contains(&key), tested.contains(&key)) {
            (true, false, true) | (false, true, false) => {}
            (true, true, _) => wrong.push(format!("{method} {path} is served: take it out of absent.tsv")),
            (true, false, false) => wrong.push(format!("{method} {path} is served, and tested.tsv names no test")),
            (false, false, _) => wrong.push(format!("{method} {path} is not served, and not listed in absent.tsv")),
            (false, true, true) => wrong.push(format!("{method} {path} is not served, and tested.tsv names a test")),
        }
    }
    let odd = absent.difference(&known);
    wrong.extend(odd.map(|(method, path)| format!("{method} {path} of absent.tsv is not in the specification")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_route_is_asked_by_a_test_that_exists() {
    let served = served(&World::new()).await;
    let tested = rows(TESTED);
    let mut wrong = Vec::new();
    for (method, route) in &served {
        if !tested.iter().any(|row| row.method == method && reaches(row.path, route)) {
            wrong.push(format!("{method} {route} is asked by no test; after writing one, run .ci/coverage tests"));
        }
    }
    for row in &tested {
        if !served.iter().any(|(method, route)| row.method == method && reaches(row.path, route)) {
            wrong.push(format!("{} {} of tested.tsv is not served", row.method, row.path));
        }
        if !exists(row.about) {
            wrong.push(format!("there is no test {}; run .ci/coverage tests", row.about));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether `test`, a module of this folder and a function in it, is there.
fn exists(test: &str) -> bool {
    let (module, function) = test.rsplit_once("::").expect("a test is named by module and function");
    let module = package().join("tests").join(module.replace("::", "/"));
    let files = [module.with_extension("rs"), module.join("mod.rs")];
    let source = files.into_iter().find(|file| file.exists()).map(|file| fs::read_to_string(file).unwrap());
    source.is_some_and(|source| source.contains(&format!("fn {function}(")))
}

#[test]
fn a_parameter_of_a_route_takes_anything() {
    assert!(reaches("/rooms/{roomId}/state", "/rooms/{room_id}/state"));
    assert!(reaches("/rules/{id}/enabled", "/rules/{id}/{attribute}"));
    assert!(!reaches("/rooms/{roomId}/{other}", "/rooms/{room_id}/state"));
    assert!(!reaches("/rooms/{roomId}", "/rooms/{room_id}/state"));
}

/// This package's folder. Asked when the test runs: what was compiled may come from another checkout.
fn package() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
}
