//! The Auth service.

use std::collections::BTreeMap;

use etcd::proto::authpb;
use etcd::proto::authpb::permission::Type;
use etcd::proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse,
    AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse, ResponseHeader,
};
use tonic::Status;

use super::password::{self, PASSWORD_BYTES_MAX};
use super::rows::{Access, Password, Permission, ROOT, Role, Row, Rows, User, role_row, state_row, user_row};
use super::{Caller, View};
use crate::door::desk::{Call, Desk, TRIES_MAX};
use crate::door::refusal::{
    AUTH_FAILED, AUTH_NOT_ENABLED, AUTH_OLD_REVISION, INVALID_AUTH_MGMT, Known, PERMISSION_NOT_GIVEN,
    PERMISSION_NOT_GRANTED, ROLE_EMPTY, ROLE_EXISTS, ROLE_NOT_FOUND, ROLE_NOT_GRANTED, ROOT_ROLE_NOT_EXIST,
    ROOT_USER_NOT_EXIST, STOPPED, TOO_MANY_REQUESTS, USER_EMPTY, USER_EXISTS, USER_NOT_FOUND,
};

/// System rows are read as a whole and kept in memory, so there is an end to them.
const USERS_MAX: usize = 10_000;
const ROLES_MAX: usize = 10_000;
const PERMISSIONS_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 1024;

/// What a change of users and roles does to the rows: those that become something else.
type Changed = Result<Vec<Row>, Known>;

fn name(name: &str, empty: Known) -> Result<(), Status> {
    if name.is_empty() {
        return Err(empty.into());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Status::invalid_argument(format!("etcdserver: a name has at most {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

impl Desk {
    /// Of the newest revision. After this, users are here as they were when it was asked for.
    async fn auth_header(&self) -> Result<Option<ResponseHeader>, Status> {
        Ok(Some(self.newest_header().await?))
    }

    /// Changes users and roles, as root.
    async fn change_auth(&self, call: &Call, mut make: impl FnMut(&Rows, u64) -> Changed) -> Result<(), Status> {
        self.amend(|view| {
            view.is_admin(&self.caller(view, call)?)?;
            let mut state = view.auth.state.clone();
            state.revision += 1;
            let mut rows = make(&view.auth, state.revision)?;
            let moved = rows.iter().any(|(key, _)| *key == state_row(&state).0);
            if !rows.is_empty() && !moved {
                rows.push(state_row(&state));
            }
            Ok((rows, ()))
        })
        .await
    }

    pub async fn auth_enable(&self, call: &Call, _: AuthEnableRequest) -> Result<AuthEnableResponse, Status> {
        let secret = world::random::bytes();
        self.change_auth(call, |auth, _| {
            if auth.state.enabled {
                return Ok(Vec::new());
            }
            let root = auth.users.get(ROOT).ok_or(ROOT_USER_NOT_EXIST)?;
            if !root.roles.contains(ROOT) {
                return Err(ROOT_ROLE_NOT_EXIST);
            }
            // The revision stays: nobody may do anything else than before.
            Ok(vec![state_row(&super::rows::State { enabled: true, secret, revision: auth.state.revision })])
        })
        .await?;
        Ok(AuthEnableResponse { header: self.auth_header().await? })
    }

    pub async fn auth_disable(&self, call: &Call, _: AuthDisableRequest) -> Result<AuthDisableResponse, Status> {
        self.change_auth(call, |auth, revision| {
            if !auth.state.enabled {
                return Ok(Vec::new());
            }
            Ok(vec![state_row(&super::rows::State { enabled: false, revision, ..auth.state.clone() })])
        })
        .await?;
        Ok(AuthDisableResponse { header: self.auth_header().await? })
    }

    pub async fn auth_status(&self, call: &Call, _: AuthStatusRequest) -> Result<AuthStatusResponse, Status> {
        let header = self.auth_header().await?;
        let view = self.view();
        view.is_admin(&self.caller(&view, call)?)?;
        Ok(AuthStatusResponse { header, enabled: view.enabled(), auth_revision: view.auth.state.revision })
    }

    pub async fn authenticate(&self, _: &Call, request: AuthenticateRequest) -> Result<AuthenticateResponse, Status> {
        self.be_up_to_date().await?;
        for _ in 0..TRIES_MAX {
            let view = self.view();
            if !view.enabled() {
                return Err(AUTH_NOT_ENABLED.into());
            }
            let user = view.auth.users.get(&request.name).ok_or(AUTH_FAILED)?;
            let known = user.password.clone().ok_or(AUTH_FAILED)?;
            if !password::is_right(known, request.password.clone()).await {
                return Err(AUTH_FAILED.into());
            }
            if self.view().judges_as(&view) {
                let token = self.tokens.issue(&view.auth.state, &request.name, user.since);
                return Ok(AuthenticateResponse { header: self.auth_header().await?, token });
            }
        }
        Err(AUTH_OLD_REVISION.into())
    }

    async fn hashed(&self, password: String) -> Result<Password, Status> {
        if password.len() > PASSWORD_BYTES_MAX {
            let text = format!("etcdserver: a password has at most {PASSWORD_BYTES_MAX} bytes");
            return Err(Status::invalid_argument(text));
        }
        Ok(password::hash(password, self.options.password_rounds).await.ok_or(STOPPED)?)
    }

    pub async fn user_add(&self, call: &Call, request: AuthUserAddRequest) -> Result<AuthUserAddResponse, Status> {
        self.admin(call)?;
        name(&request.name, USER_EMPTY)?;
        let no_password = request.options.is_some_and(|options| options.no_password);
        let password = if no_password { None } else { Some(self.hashed(request.password).await?) };
        self.change_auth(call, |auth, since| {
            if auth.users.contains_key(&request.name) {
                return Err(USER_EXISTS);
            }
            if auth.users.len() >= USERS_MAX {
                return Err(TOO_MANY_REQUESTS);
            }
            let user = User { password: password.clone(), since, ..User::default() };
            Ok(vec![user_row(&request.name, Some(&user))])
        })
        .await?;
        Ok(AuthUserAddResponse { header: self.auth_header().await? })
    }

    pub async fn user_get(&self, call: &Call, request: AuthUserGetRequest) -> Result<AuthUserGetResponse, Status> {
        let header = self.auth_header().await?;
        let view = self.view();
        let caller = self.caller(&view, call)?;
        if !matches!(&caller, Caller::User(own) if **own == *request.name) {
            view.is_admin(&caller)?;
        }
        let user = view.auth.users.get(&request.name).ok_or(USER_NOT_FOUND)?;
        let roles = user.roles.iter().cloned().collect();
        Ok(AuthUserGetResponse { header, roles })
    }

    pub async fn user_list(&self, call: &Call, _: AuthUserListRequest) -> Result<AuthUserListResponse, Status> {
        let header = self.auth_header().await?;
        let view = self.view();
        view.is_admin(&self.caller(&view, call)?)?;
        Ok(AuthUserListResponse { header, users: names(&view.auth.users) })
    }

    pub async fn user_delete(
        &self,
        call: &Call,
        request: AuthUserDeleteRequest,
    ) -> Result<AuthUserDeleteResponse, Status> {
        self.change_auth(call, |auth, _| {
            if auth.state.enabled && request.name == ROOT {
                return Err(INVALID_AUTH_MGMT);
            }
            auth.users.get(&request.name).ok_or(USER_NOT_FOUND)?;
            Ok(vec![user_row(&request.name, None)])
        })
        .await?;
        Ok(AuthUserDeleteResponse { header: self.auth_header().await? })
    }

    pub async fn user_change_password(
        &self,
        call: &Call,
        request: AuthUserChangePasswordRequest,
    ) -> Result<AuthUserChangePasswordResponse, Status> {
        self.admin(call)?;
        let password = self.hashed(request.password).await?;
        self.change_auth(call, |auth, since| {
            let user = auth.users.get(&request.name).ok_or(USER_NOT_FOUND)?;
            let password = user.password.as_ref().map(|_| password.clone());
            let user = User { password, since, ..user.clone() };
            Ok(vec![user_row(&request.name, Some(&user))])
        })
        .await?;
        Ok(AuthUserChangePasswordResponse { header: self.auth_header().await? })
    }

    pub async fn user_grant_role(
        &self,
        call: &Call,
        request: AuthUserGrantRoleRequest,
    ) -> Result<AuthUserGrantRoleResponse, Status> {
        self.change_auth(call, |auth, _| {
            let mut user = auth.users.get(&request.user).ok_or(USER_NOT_FOUND)?.clone();
            if request.role != ROOT && !auth.roles.contains_key(&request.role) {
                return Err(ROLE_NOT_FOUND);
            }
            let new = user.roles.insert(request.role.clone());
            Ok(if new { vec![user_row(&request.user, Some(&user))] } else { Vec::new() })
        })
        .await?;
        Ok(AuthUserGrantRoleResponse { header: self.auth_header().await? })
    }

    pub async fn user_revoke_role(
        &self,
        call: &Call,
        request: AuthUserRevokeRoleRequest,
    ) -> Result<AuthUserRevokeRoleResponse, Status> {
        self.change_auth(call, |auth, _| {
            if auth.state.enabled && request.name == ROOT && request.role == ROOT {
                return Err(INVALID_AUTH_MGMT);
            }
            let mut user = auth.users.get(&request.name).ok_or(USER_NOT_FOUND)?.clone();
            if !user.roles.remove(&request.role) {
                return Err(ROLE_NOT_GRANTED);
            }
            Ok(vec![user_row(&request.name, Some(&user))])
        })
        .await?;
        Ok(AuthUserRevokeRoleResponse { header: self.auth_header().await? })
    }

    pub async fn role_add(&self, call: &Call, request: AuthRoleAddRequest) -> Result<AuthRoleAddResponse, Status> {
        self.admin(call)?;
        name(&request.name, ROLE_EMPTY)?;
        self.change_auth(call, |auth, _| {
            if auth.roles.contains_key(&request.name) {
                return Err(ROLE_EXISTS);
            }
            if auth.roles.len() >= ROLES_MAX {
                return Err(TOO_MANY_REQUESTS);
            }
            Ok(vec![role_row(&request.name, Some(&Role::default()))])
        })
        .await?;
        Ok(AuthRoleAddResponse { header: self.auth_header().await? })
    }

    pub async fn role_get(&self, call: &Call, request: AuthRoleGetRequest) -> Result<AuthRoleGetResponse, Status> {
        let header = self.auth_header().await?;
        let view = self.view();
        let caller = self.caller(&view, call)?;
        if !has_role(&view, &caller, &request.role) {
            view.is_admin(&caller)?;
        }
        let role = view.auth.roles.get(&request.role).ok_or(ROLE_NOT_FOUND)?;
        let perm = role.permissions.iter().map(permission).collect();
        Ok(AuthRoleGetResponse { header, perm })
    }

    pub async fn role_list(&self, call: &Call, _: AuthRoleListRequest) -> Result<AuthRoleListResponse, Status> {
        let header = self.auth_header().await?;
        let view = self.view();
        view.is_admin(&self.caller(&view, call)?)?;
        Ok(AuthRoleListResponse { header, roles: names(&view.auth.roles) })
    }

    pub async fn role_delete(
        &self,
        call: &Call,
        request: AuthRoleDeleteRequest,
    ) -> Result<AuthRoleDeleteResponse, Status> {
        self.change_auth(call, |auth, _| {
            if auth.state.enabled && request.role == ROOT {
                return Err(INVALID_AUTH_MGMT);
            }
            auth.roles.get(&request.role).ok_or(ROLE_NOT_FOUND)?;
            let mut rows = vec![role_row(&request.role, None)];
            for (name, user) in &auth.users {
                let mut user = user.clone();
                if user.roles.remove(&request.role) {
                    rows.push(user_row(name, Some(&user)));
                }
            }
            Ok(rows)
        })
        .await?;
        Ok(AuthRoleDeleteResponse { header: self.auth_header().await? })
    }

    pub async fn role_grant_permission(
        &self,
        call: &Call,
        request: AuthRoleGrantPermissionRequest,
    ) -> Result<AuthRoleGrantPermissionResponse, Status> {
        self.admin(call)?;
        let given = request.perm.ok_or(PERMISSION_NOT_GIVEN)?;
        let access = match given.perm_type() {
            Type::Read => Access::Read,
            Type::Write => Access::Write,
            Type::Readwrite => Access::ReadWrite,
        };
        let open = given.range_end[..] == [0];
        if given.key.is_empty() || !(given.range_end.is_empty() || open || given.range_end > given.key) {
            return Err(INVALID_AUTH_MGMT.into());
        }
        let given = Permission { access, key: given.key, range_end: given.range_end };
        self.change_auth(call, |auth, _| {
            let mut role = auth.roles.get(&request.name).ok_or(ROLE_NOT_FOUND)?.clone();
            let same = |p: &&mut Permission| p.key == given.key && p.range_end == given.range_end;
            if let Some(held) = role.permissions.iter_mut().find(same) {
                held.access = given.access;
            } else if role.permissions.len() >= PERMISSIONS_MAX {
                return Err(TOO_MANY_REQUESTS);
            } else {
                role.permissions.push(given.clone());
                role.permissions.sort_by(|a, b| a.key.cmp(&b.key));
            }
            Ok(vec![role_row(&request.name, Some(&role))])
        })
        .await?;
        Ok(AuthRoleGrantPermissionResponse { header: self.auth_header().await? })
    }

    pub async fn role_revoke_permission(
        &self,
        call: &Call,
        request: AuthRoleRevokePermissionRequest,
    ) -> Result<AuthRoleRevokePermissionResponse, Status> {
        self.change_auth(call, |auth, _| {
            let mut role = auth.roles.get(&request.role).ok_or(ROLE_NOT_FOUND)?.clone();
            let before = role.permissions.len();
            role.permissions.retain(|p| p.key != request.key || p.range_end != request.range_end);
            if role.permissions.len() == before {
                return Err(PERMISSION_NOT_GRANTED);
            }
            Ok(vec![role_row(&request.role, Some(&role))])
        })
        .await?;
        Ok(AuthRoleRevokePermissionResponse { header: self.auth_header().await? })
    }
}

fn names<T>(rows: &BTreeMap<String, T>) -> Vec<String> {
    rows.keys().cloned().collect()
}

fn has_role(view: &View, caller: &Caller, role: &str) -> bool {
    match caller {
        Caller::User(name) => view.auth.users.get(&**name).is_some_and(|user| user.roles.contains(role)),
        Caller::Anyone | Caller::Nobody => false,
    }
}

fn permission(permission: &Permission) -> authpb::Permission {
    let kind = match permission.access {
        Access::Read => Type::Read,
        Access::Write => Type::Write,
        Access::ReadWrite => Type::Readwrite,
    };
    authpb::Permission { perm_type: kind.into(), key: permission.key.clone(), range_end: permission.range_end.clone() }
}
