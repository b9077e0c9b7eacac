//! Every method of the door: its path, and its place in the counters.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    Unary,
    ServerStream,
    BidiStream,
}

impl Shape {
    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($id:ident $service:literal $name:literal $shape:ident;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Method { $($id),* }

        impl Method {
            pub const ALL: &[Method] = &[$(Method::$id),*];

            /// By path: `/package.Service/Method`.
            pub fn find(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/", $service, "/", $name) => Some(Self::$id),)*
                    _ => None,
                }
            }

            pub const fn service(self) -> &'static str {
                match self { $(Self::$id => $service),* }
            }

            pub const fn name(self) -> &'static str {
                match self { $(Self::$id => $name),* }
            }

            pub const fn shape(self) -> Shape {
                match self { $(Self::$id => Shape::$shape),* }
            }
        }
    };
}

methods! {
    Range "etcdserverpb.KV" "Range" Unary;
    Put "etcdserverpb.KV" "Put" Unary;
    DeleteRange "etcdserverpb.KV" "DeleteRange" Unary;
    Txn "etcdserverpb.KV" "Txn" Unary;
    Compact "etcdserverpb.KV" "Compact" Unary;
    Watch "etcdserverpb.Watch" "Watch" BidiStream;
    LeaseGrant "etcdserverpb.Lease" "LeaseGrant" Unary;
    LeaseRevoke "etcdserverpb.Lease" "LeaseRevoke" Unary;
    LeaseKeepAlive "etcdserverpb.Lease" "LeaseKeepAlive" BidiStream;
    LeaseTimeToLive "etcdserverpb.Lease" "LeaseTimeToLive" Unary;
    LeaseLeases "etcdserverpb.Lease" "LeaseLeases" Unary;
    MemberAdd "etcdserverpb.Cluster" "MemberAdd" Unary;
    MemberRemove "etcdserverpb.Cluster" "MemberRemove" Unary;
    MemberUpdate "etcdserverpb.Cluster" "MemberUpdate" Unary;
    MemberList "etcdserverpb.Cluster" "MemberList" Unary;
    MemberPromote "etcdserverpb.Cluster" "MemberPromote" Unary;
    Alarm "etcdserverpb.Maintenance" "Alarm" Unary;
    Status "etcdserverpb.Maintenance" "Status" Unary;
    Defragment "etcdserverpb.Maintenance" "Defragment" Unary;
    Hash "etcdserverpb.Maintenance" "Hash" Unary;
    HashKv "etcdserverpb.Maintenance" "HashKV" Unary;
    Snapshot "etcdserverpb.Maintenance" "Snapshot" ServerStream;
    MoveLeader "etcdserverpb.Maintenance" "MoveLeader" Unary;
    Downgrade "etcdserverpb.Maintenance" "Downgrade" Unary;
    AuthEnable "etcdserverpb.Auth" "AuthEnable" Unary;
    AuthDisable "etcdserverpb.Auth" "AuthDisable" Unary;
    AuthStatus "etcdserverpb.Auth" "AuthStatus" Unary;
    Authenticate "etcdserverpb.Auth" "Authenticate" Unary;
    UserAdd "etcdserverpb.Auth" "UserAdd" Unary;
    UserGet "etcdserverpb.Auth" "UserGet" Unary;
    UserList "etcdserverpb.Auth" "UserList" Unary;
    UserDelete "etcdserverpb.Auth" "UserDelete" Unary;
    UserChangePassword "etcdserverpb.Auth" "UserChangePassword" Unary;
    UserGrantRole "etcdserverpb.Auth" "UserGrantRole" Unary;
    UserRevokeRole "etcdserverpb.Auth" "UserRevokeRole" Unary;
    RoleAdd "etcdserverpb.Auth" "RoleAdd" Unary;
    RoleGet "etcdserverpb.Auth" "RoleGet" Unary;
    RoleList "etcdserverpb.Auth" "RoleList" Unary;
    RoleDelete "etcdserverpb.Auth" "RoleDelete" Unary;
    RoleGrantPermission "etcdserverpb.Auth" "RoleGrantPermission" Unary;
    RoleRevokePermission "etcdserverpb.Auth" "RoleRevokePermission" Unary;
    Lock "v3lockpb.Lock" "Lock" Unary;
    Unlock "v3lockpb.Lock" "Unlock" Unary;
    Campaign "v3electionpb.Election" "Campaign" Unary;
    Proclaim "v3electionpb.Election" "Proclaim" Unary;
    Leader "v3electionpb.Election" "Leader" Unary;
    Observe "v3electionpb.Election" "Observe" ServerStream;
    Resign "v3electionpb.Election" "Resign" Unary;
    HealthCheck "grpc.health.v1.Health" "Check" Unary;
    HealthWatch "grpc.health.v1.Health" "Watch" ServerStream;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_found_by_its_path_and_stands_at_its_place() {
        for (at, method) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, at);
            assert_eq!(Method::find(&format!("/{}/{}", method.service(), method.name())), Some(*method));
        }
        assert_eq!(Method::find("/etcdserverpb.KV/Nothing"), None);
    }
}
