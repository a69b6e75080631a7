//! The routes against the tables of `tests/coverage`, as in the tests of the client API: what the specification has
//! for servers, which test asks it, and what is not served yet.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;

const SPEC: &str = include_str!("../../../tests/coverage/spec.tsv");
const TESTED: &str = include_str!("../../../tests/coverage/tested.tsv");
const ABSENT: &str = include_str!("../../../tests/coverage/absent.tsv");

/// Method, path and the last column of the lines about endpoints for servers.
fn rows(table: &str) -> Vec<(&str, &str, &str)> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let columns = lines.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [method, path, about] = columns[..] else { panic!("no row of three columns: {line}") };
        (method, path, about)
    });
    columns.filter(|(_, path, _)| is_for_servers(path)).collect()
}

/// What clients and services ask the client API serves, whatever the path is called.
fn is_for_servers(path: &str) -> bool {
    let prefixes = ["/_matrix/federation/", "/_matrix/key/", "/_matrix/policy/"];
    prefixes.iter().any(|prefix| path.starts_with(prefix)) && !path.ends_with("/openid/userinfo")
}

/// Whether requests for `path` reach `route`: both have their parameters in braces.
fn reaches(path: &str, route: &str) -> bool {
    let (path, route): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), route.split('/').collect());
    path.len() == route.len() && path.iter().zip(&route).all(|(theirs, ours)| ours.starts_with('{') || theirs == ours)
}

/// Methods and paths of the routes, as the answer to a method that nothing takes tells them.
async fn served(world: &World) -> BTreeSet<(String, &'static str)> {
    let mut all = BTreeSet::new();
    for route in crate::routes::paths() {
        let parts: Vec<&str> = route.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
        let answer = world.open(Method::TRACE, &parts.join("/"), "").await;
        let allowed = answer.headers[header::ALLOW].to_str().unwrap().to_owned();
        all.extend(allowed.split(',').filter(|method| *method != "HEAD").map(|method| (method.to_owned(), route)));
    }
    all
}

#[tokio::test]
async fn every_endpoint_for_servers_is_served_or_listed_as_missing() {
    let served = served(&World::new().await).await;
    let absent: BTreeSet<_> = rows(ABSENT).iter().map(|(method, path, _)| (*method, *path)).collect();
    let mut wrong = Vec::new();
    for (method, path, _) in rows(SPEC) {
        // A query of any type is served, those that are not known with an error.
        let is_served = served.iter().any(|(with, route)| with == method && reaches(path, route));
        if is_served == absent.contains(&(method, path)) {
            wrong.push(format!("{method} {path}: served is {is_served}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_route_is_asked_by_a_test_that_exists() {
    let served = served(&World::new().await).await;
    let tested = rows(TESTED);
    let mut wrong = Vec::new();
    for (method, route) in &served {
        if !tested.iter().any(|(with, path, _)| with == method && reaches(path, route)) {
            wrong.push(format!("{method} {route} is asked by no test; after writing one, run .ci/coverage tests"));
        }
    }
    for (method, path, test) in &tested {
        if !served.iter().any(|(with, route)| with == method && reaches(path, route)) {
            wrong.push(format!("{method} {path} of tested.tsv is not served"));
        }
        let (module, function) = test.rsplit_once("::").expect("a test is named by module and function");
        let file = package().join("tests").join(format!("{module}.rs"));
        if !fs::read_to_string(file).is_ok_and(|source| source.contains(&format!("fn {function}("))) {
            wrong.push(format!("there is no test {test}; run .ci/coverage tests"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// This package's folder. Asked when the test runs: what was compiled may come from another checkout.
fn package() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
}
