//! `/pushrules/…`. The only scope is `global`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use ruma_common::push::{
    Action, AnyPushRuleRef, InsertPushRuleError, NewConditionalPushRule, NewPatternedPushRule, NewPushRule,
    NewSimplePushRule, PushCondition, RemovePushRuleError, RuleKind, Ruleset,
};
use serde::Deserialize;
use serde_json::json;

use crate::Api;
use crate::auth::Authed;
use crate::body::Json;
use crate::error::ApiError;
use crate::params::{Query, Segments, invalid, required};
use crate::reply;

/// `GET /pushrules/`
pub(crate) async fn get_all(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Result<Response, ApiError> {
    Ok(reply::raw(api.accounts.push_rules_content(&requester.user_id).await?))
}

/// `GET /pushrules/global/`
pub(crate) async fn get_global(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Result<Response, ApiError> {
    Ok(reply::json(&api.accounts.push_rules(&requester.user_id).await?))
}

/// `GET /pushrules/global/{kind}/{ruleId}`
pub(crate) async fn get_rule(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((kind, rule_id)): Segments<(String, String)>,
) -> Result<Response, ApiError> {
    let rules = api.accounts.push_rules(&requester.user_id).await?;
    match find(&rules, &kind, &rule_id)? {
        AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => Ok(reply::json(rule)),
        AnyPushRuleRef::Content(rule) => Ok(reply::json(rule)),
        AnyPushRuleRef::Room(rule) => Ok(reply::json(rule)),
        AnyPushRuleRef::Sender(rule) => Ok(reply::json(rule)),
        _ => Err(no_rule()),
    }
}

/// `GET /pushrules/global/{kind}/{ruleId}/{attribute}`
pub(crate) async fn get_attribute(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((kind, rule_id, attribute)): Segments<(String, String, String)>,
) -> Result<Response, ApiError> {
    let rules = api.accounts.push_rules(&requester.user_id).await?;
    let rule = find(&rules, &kind, &rule_id)?;
    match attribute.as_str() {
        "enabled" => Ok(reply::json(&json!({"enabled": rule.enabled()}))),
        "actions" => Ok(reply::json(&json!({"actions": rule.actions()}))),
        _ => Err(crate::edge::unknown_path().await),
    }
}

#[derive(Deserialize)]
pub(crate) struct AttributeBody {
    enabled: Option<bool>,
    actions: Option<Vec<Action>>,
}

/// What of a rule can be changed by itself.
enum Attribute {
    Enabled(bool),
    Actions(Vec<Action>),
}

/// `PUT /pushrules/global/{kind}/{ruleId}/{attribute}`
pub(crate) async fn put_attribute(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((kind, rule_id, attribute)): Segments<(String, String, String)>,
    Json(body): Json<AttributeBody>,
) -> Result<Response, ApiError> {
    let kind = parse_kind(&kind)?;
    let attribute = match attribute.as_str() {
        "enabled" => Attribute::Enabled(required(body.enabled, "enabled")?),
        "actions" => Attribute::Actions(required(body.actions, "actions")?),
        _ => return Err(crate::edge::unknown_path().await),
    };
    let change = |rules: &mut Ruleset| {
        match &attribute {
            Attribute::Enabled(enabled) => rules.set_enabled(kind.clone(), &rule_id, *enabled),
            Attribute::Actions(actions) => rules.set_actions(kind.clone(), &rule_id, actions.clone()),
        }
        .map_err(|_| no_rule())
    };
    api.accounts.change_push_rules(&requester.user_id, change).await?;
    Ok(reply::empty())
}

#[derive(Deserialize)]
pub(crate) struct RuleBody {
    actions: Option<Vec<Action>>,
    conditions: Option<Vec<PushCondition>>,
    pattern: Option<String>,
}

/// `PUT /pushrules/global/{kind}/{ruleId}`
pub(crate) async fn put_rule(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((kind, rule_id)): Segments<(String, String)>,
    query: Query,
    Json(body): Json<RuleBody>,
) -> Result<Response, ApiError> {
    let rule = new_rule(&kind, rule_id, body)?;
    let (after, before) = (query.get("after"), query.get("before"));
    let change = |rules: &mut Ruleset| insert(rules, rule.clone(), after, before);
    api.accounts.change_push_rules(&requester.user_id, change).await?;
    Ok(reply::empty())
}

/// `DELETE /pushrules/global/{kind}/{ruleId}`
pub(crate) async fn delete_rule(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((kind, rule_id)): Segments<(String, String)>,
) -> Result<Response, ApiError> {
    let kind = parse_kind(&kind)?;
    let change = |rules: &mut Ruleset| {
        rules.remove(kind.clone(), &rule_id).map_err(|error| match error {
            RemovePushRuleError::ServerDefault => refused("the server's own rules cannot be deleted"),
            _ => no_rule(),
        })
    };
    api.accounts.change_push_rules(&requester.user_id, change).await?;
    Ok(reply::empty())
}

fn new_rule(kind: &str, rule_id: String, body: RuleBody) -> Result<NewPushRule, ApiError> {
    let actions = required(body.actions, "actions")?;
    let conditional =
        |rule_id, actions| NewConditionalPushRule::new(rule_id, body.conditions.unwrap_or_default(), actions);
    Ok(match parse_kind(kind)? {
        RuleKind::Override => NewPushRule::Override(conditional(rule_id, actions)),
        RuleKind::Underride => NewPushRule::Underride(conditional(rule_id, actions)),
        RuleKind::Content => {
            let pattern = required(body.pattern, "pattern")?;
            NewPushRule::Content(NewPatternedPushRule::new(rule_id, pattern, actions))
        }
        RuleKind::Room => {
            let room = rule_id.try_into().map_err(|_| invalid("ruleId"))?;
            NewPushRule::Room(NewSimplePushRule::new(room, actions))
        }
        _ => {
            let sender = rule_id.try_into().map_err(|_| invalid("ruleId"))?;
            NewPushRule::Sender(NewSimplePushRule::new(sender, actions))
        }
    })
}

fn insert(rules: &mut Ruleset, rule: NewPushRule, after: Option<&str>, before: Option<&str>) -> Result<(), ApiError> {
    let (kind, rule_id) = (rule.kind(), rule.rule_id().to_owned());
    let old = rules.get(kind.clone(), &rule_id).map(AnyPushRuleRef::enabled);
    // A rule that moves is taken out first: its new place is counted among the others.
    if old.is_some() && (after.is_some() || before.is_some()) {
        rules.remove(kind.clone(), &rule_id).map_err(|_| refused("the server's own rules cannot be replaced"))?;
    }
    rules.insert(rule, after, before).map_err(|error| match error {
        InsertPushRuleError::UnknownRuleId => {
            ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "there is no rule to put it before or after")
        }
        other => ApiError::invalid_param(other.to_string()),
    })?;
    if old == Some(false) {
        rules.set_enabled(kind, &rule_id, false).map_err(|_| no_rule())?;
    }
    Ok(())
}

fn find<'a>(rules: &'a Ruleset, kind: &str, rule_id: &str) -> Result<AnyPushRuleRef<'a>, ApiError> {
    // A kind that does not exist has no rules: so clients find out about kinds of proposals.
    known_kind(kind).and_then(|kind| rules.get(kind, rule_id)).ok_or_else(no_rule)
}

fn parse_kind(kind: &str) -> Result<RuleKind, ApiError> {
    known_kind(kind).ok_or_else(|| ApiError::invalid_param("this kind of push rule does not exist"))
}

fn known_kind(kind: &str) -> Option<RuleKind> {
    match kind {
        "override" => Some(RuleKind::Override),
        "underride" => Some(RuleKind::Underride),
        "sender" => Some(RuleKind::Sender),
        "room" => Some(RuleKind::Room),
        "content" => Some(RuleKind::Content),
        _ => None,
    }
}

fn refused(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", message)
}

fn no_rule() -> ApiError {
    ApiError::not_found("there is no such push rule")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(rules: &mut Ruleset, id: &str, after: Option<&str>, before: Option<&str>) -> Result<(), ApiError> {
        let body: RuleBody = serde_json::from_value(json!({"actions": ["notify"], "pattern": "x"})).unwrap();
        insert(rules, new_rule("content", id.into(), body).unwrap(), after, before)
    }

    fn ids(rules: &Ruleset) -> Vec<String> {
        let rules = serde_json::to_value(rules).unwrap();
        let own = rules["content"].as_array().unwrap().iter().map(|rule| rule["rule_id"].as_str().unwrap().to_owned());
        own.filter(|id| !id.starts_with('.')).collect()
    }

    #[test]
    fn a_rule_moves_behind_the_last_one_and_stays_disabled() {
        let mut rules = Ruleset::server_default(ruma_common::user_id!("@ann:hs.test"));
        put(&mut rules, "b", None, None).unwrap();
        put(&mut rules, "a", None, None).unwrap();
        assert_eq!(ids(&rules), ["a", "b"]);
        rules.set_enabled(RuleKind::Content, "a", false).unwrap();
        put(&mut rules, "a", Some("b"), None).unwrap();
        assert_eq!(ids(&rules), ["b", "a"]);
        assert!(!rules.get(RuleKind::Content, "a").unwrap().enabled());
    }

    #[test]
    fn names_that_are_the_servers_or_break_paths_are_refused() {
        let mut rules = Ruleset::new();
        for id in [".m.rule.own", "a/b", "a\\b"] {
            put(&mut rules, id, None, None).unwrap_err();
        }
        put(&mut rules, "a", Some("absent"), None).unwrap_err();
    }
}
