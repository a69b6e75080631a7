//! `/devices`, `/devices/{deviceId}` and `/delete_devices`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_accounts::{DeviceInfo, PutDevice};
use http::{Method, StatusCode};
use ruma_common::OwnedDeviceId;
use serde::{Deserialize, Serialize};

use crate::Api;
use crate::auth::Authed;
use crate::body::{Json, RawBody};
use crate::error::ApiError;
use crate::params::{Segments, required};
use crate::reply;
use crate::uia::{self, Operation};

#[derive(Serialize)]
struct DeviceReply {
    device_id: OwnedDeviceId,
    display_name: Option<String>,
    /// Not recorded. Some clients do not take the answer without the keys.
    last_seen_ip: Option<String>,
    last_seen_ts: Option<u64>,
}

impl From<DeviceInfo> for DeviceReply {
    fn from(info: DeviceInfo) -> Self {
        Self { device_id: info.device_id, display_name: info.display_name, last_seen_ip: None, last_seen_ts: None }
    }
}

#[derive(Serialize)]
struct Devices {
    devices: Vec<DeviceReply>,
}

/// `GET /devices`
pub(crate) async fn list(State(api): State<Arc<Api>>, Authed(requester): Authed) -> Result<Response, ApiError> {
    let devices = api.accounts.devices(requester.user).await?;
    Ok(reply::json(&Devices { devices: devices.into_iter().map(DeviceReply::from).collect() }))
}

/// `GET /devices/{deviceId}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(device_id): Segments<OwnedDeviceId>,
) -> Result<Response, ApiError> {
    let device = api.accounts.device(requester.user, &device_id).await?;
    let device = device.ok_or_else(|| ApiError::not_found("there is no such device"))?;
    Ok(reply::json(&DeviceReply::from(device)))
}

#[derive(Deserialize)]
pub(crate) struct NameBody {
    display_name: Option<String>,
}

/// `PUT /devices/{deviceId}`
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(device_id): Segments<OwnedDeviceId>,
    Json(body): Json<NameBody>,
) -> Result<Response, ApiError> {
    if requester.client.service().is_some() {
        return Ok(match api.accounts.put_device_by_service(&requester, &device_id, body.display_name).await? {
            PutDevice::Created => (StatusCode::CREATED, reply::empty()).into_response(),
            PutDevice::Updated => reply::empty(),
        });
    }
    if let Some(name) = body.display_name {
        api.accounts.set_device_name(requester.user, &device_id, Some(name)).await?;
    } else {
        // Nothing to change, but only of a device that is there.
        let device = api.accounts.device(requester.user, &device_id).await?;
        device.ok_or_else(|| ApiError::not_found("there is no such device"))?;
    }
    Ok(reply::empty())
}

/// `DELETE /devices/{deviceId}`
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(device_id): Segments<OwnedDeviceId>,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let path = format!("/devices/{device_id}");
    let confirmed =
        uia::confirm_unless_service(&api, &requester, Operation { method: Method::DELETE, path: &path }, &body).await?;
    api.accounts.delete_devices(requester.user, &[device_id]).await?;
    if let Some(confirmed) = confirmed {
        api.accounts.uia_complete(&confirmed);
    }
    Ok(reply::empty())
}

/// How many devices one request may delete: more than anybody may have.
const MAX_DEVICES: usize = 1000;

#[derive(Deserialize)]
struct DeleteBody {
    devices: Option<Vec<OwnedDeviceId>>,
}

/// `POST /delete_devices`
pub(crate) async fn delete_many(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    RawBody(body): RawBody,
) -> Result<Response, ApiError> {
    let wanted: DeleteBody = crate::body::parse(&body, api.settings.json_depth)?;
    let devices = required(wanted.devices, "devices")?;
    if devices.len() > MAX_DEVICES {
        return Err(ApiError::invalid_param(format!("at most {MAX_DEVICES} devices at once")));
    }
    let operation = Operation { method: Method::POST, path: "/delete_devices" };
    let confirmed = uia::confirm_unless_service(&api, &requester, operation, &body).await?;
    api.accounts.delete_devices(requester.user, &devices).await?;
    if let Some(confirmed) = confirmed {
        api.accounts.uia_complete(&confirmed);
    }
    Ok(reply::empty())
}
