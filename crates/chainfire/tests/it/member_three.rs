//! Three members: what a store must do, asked of whoever leads and of one that follows.

mod through_the_leader {
    use store::conformance::Subject;

    use crate::member_cluster::Cluster;
    use crate::member_stand_in::StandIn;

    async fn subject() -> Subject {
        let mut cluster = Cluster::on_disk(3).await;
        let leader = cluster.leader().await;
        let member = cluster.take(leader);
        Subject::holding(StandIn(member), cluster)
    }

    store::conformance::suite!(subject);
}

mod through_a_follower {
    use store::conformance::Subject;

    use crate::member_cluster::Cluster;
    use crate::member_stand_in::StandIn;

    async fn subject() -> Subject {
        let mut cluster = Cluster::in_memory(3).await;
        let follower = cluster.follower().await;
        let member = cluster.take(follower);
        Subject::holding(StandIn(member), cluster)
    }

    store::conformance::suite!(subject);
}
