//! Paths of accounts and of what belongs to a user.

use super::Table;
use super::methods::{delete, get, post, put};
use crate::accounts::{
    account, account_data, admin, devices, filter, login, notices, openid, profile, push_rules, pushers, refresh,
    register, shared_secret, tags,
};
use crate::discovery::{capabilities, versions, well_known};

/// Below `/_matrix/client/v3`.
pub(super) fn v3() -> Table {
    [logins(), user_data()].concat()
}

/// Everywhere else.
pub(super) fn elsewhere() -> Table {
    vec![
        ("/.well-known/matrix/client", get(well_known::client)),
        ("/.well-known/matrix/server", get(well_known::server)),
        ("/.well-known/matrix/support", get(well_known::support)),
        ("/_matrix/client/versions", get(versions::get)),
        (
            "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{type}",
            delete(account_data::delete_global),
        ),
        (
            "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/{room_id}/account_data/{type}",
            delete(account_data::delete_of_room),
        ),
        ("/_matrix/federation/v1/openid/userinfo", get(openid::userinfo)),
        ("/_matrix/client/v1/admin/lock/{user_id}", get(admin::is_locked).put(admin::lock)),
        ("/_matrix/client/v1/admin/suspend/{user_id}", get(admin::is_suspended).put(admin::suspend)),
        ("/_matrix/client/v1/login/get_token", post(login::get_token)),
        ("/_synapse/admin/v1/register", get(shared_secret::nonce).post(shared_secret::register)),
        ("/_synapse/admin/v1/send_server_notice", post(notices::send)),
        ("/_synapse/admin/v1/send_server_notice/{txn}", put(notices::send_once)),
        ("/_matrix/client/v1/register/m.login.registration_token/validity", get(register::token_validity)),
    ]
}

fn logins() -> Table {
    vec![
        ("/account/3pid", get(account::third_party_ids)),
        ("/account/deactivate", post(account::deactivate)),
        ("/account/password", post(account::password)),
        ("/account/whoami", get(login::whoami)),
        ("/admin/whois/{user_id}", get(admin::whois)),
        ("/capabilities", get(capabilities::get)),
        ("/delete_devices", post(devices::delete_many)),
        ("/devices", get(devices::list)),
        ("/devices/{device_id}", get(devices::get).put(devices::put).delete(devices::delete)),
        ("/login", get(login::flows).post(login::login)),
        ("/logout", post(login::logout)),
        ("/logout/all", post(login::logout_all)),
        ("/pushers", get(pushers::list)),
        ("/pushers/set", post(pushers::set)),
        ("/refresh", post(refresh::refresh)),
        ("/register", post(register::register)),
        ("/register/available", get(register::available)),
        ("/thirdparty/protocols", get(capabilities::protocols)),
        ("/voip/turnServer", get(capabilities::turn_server)),
    ]
}

fn user_data() -> Table {
    let account_data_of_user =
        get(account_data::get_global).put(account_data::put_global).delete(account_data::delete_global);
    let account_data_of_room =
        get(account_data::get_of_room).put(account_data::put_of_room).delete(account_data::delete_of_room);
    let rule = get(push_rules::get_rule).put(push_rules::put_rule).delete(push_rules::delete_rule);
    vec![
        ("/profile/{user_id}", get(profile::get)),
        ("/profile/{user_id}/{field}", get(profile::get_field).put(profile::put_field).delete(profile::delete_field)),
        ("/pushrules/", get(push_rules::get_all)),
        ("/pushrules/global/", get(push_rules::get_global)),
        ("/pushrules/global/{kind}/{rule_id}", rule),
        (
            "/pushrules/global/{kind}/{rule_id}/{attribute}",
            get(push_rules::get_attribute).put(push_rules::put_attribute),
        ),
        ("/user/{user_id}/account_data/{type}", account_data_of_user),
        ("/user/{user_id}/filter", post(filter::post)),
        ("/user/{user_id}/filter/{filter_id}", get(filter::get)),
        ("/user/{user_id}/openid/request_token", post(openid::request_token)),
        ("/user/{user_id}/rooms/{room_id}/account_data/{type}", account_data_of_room),
        ("/user/{user_id}/rooms/{room_id}/tags", get(tags::list)),
        ("/user/{user_id}/rooms/{room_id}/tags/{tag}", put(tags::put).delete(tags::delete)),
    ]
}
