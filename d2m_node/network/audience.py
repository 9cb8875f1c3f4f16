"""Gossip that goes to a topic's audience, and to nobody who merely says that it subscribes.

Subscriptions are claims. So who else subscribes is in no mesh, is offered nothing, and gets no
message, whichever way it would take. The last word has `write_msg`: it sees all that leaves.
"""

import time
from collections.abc import Callable, Iterable

from libp2p.abc import IHost, INetStream
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2

from d2m_node.network.hardening import Blame, HardenedGossipSub, HardenedPubsub, Judge
from d2m_node.ports import TopicPlace

FindPlace = Callable[[str, bytes], TopicPlace]
"""Topic, peer id → what the peer has to do with it."""


class AudienceGossipSub(HardenedGossipSub):
    """The router, with meshes of the audience alone."""

    def __init__(self, heartbeat_seconds: float, find_place: FindPlace) -> None:
        super().__init__(heartbeat_seconds)
        self._find_place = find_place

    def may_hear(self, peer_id: ID, topic: str) -> bool:
        """Tell whether a peer is of a topic's audience."""
        return self._find_place(topic, peer_id.to_bytes()) is TopicPlace.AUDIENCE

    def _get_peers_to_send(
        self,
        topic_ids: Iterable[str],
        msg_forwarder: ID,
        origin: ID,
        msg_id: bytes | None = None,
    ) -> Iterable[ID]:
        topics = tuple(topic_ids)
        found = super()._get_peers_to_send(topics, msg_forwarder, origin, msg_id)
        return {peer for peer in found if all(self.may_hear(peer, topic) for topic in topics)}

    def _get_in_topic_gossipsub_peers_from_minus(
        self, topic: str, num_to_select: int, minus: Iterable[ID], backoff_check: bool = False
    ) -> list[ID]:
        """Choose among the audience: who is grafted, and who is offered what there is."""
        assert self.pubsub is not None
        subscribed = self.pubsub.peer_topics.get(topic, set())
        strangers = {peer for peer in subscribed if not self.may_hear(peer, topic)}
        return super()._get_in_topic_gossipsub_peers_from_minus(
            topic, num_to_select, strangers | set(minus), backoff_check
        )

    async def on_peer_subscribed(self, peer_id: ID, topic: str) -> None:
        """Take a new subscriber into the mesh, if it is of the audience."""
        if self.may_hear(peer_id, topic):
            await super().on_peer_subscribed(peer_id, topic)

    async def handle_graft(self, graft_msg: rpc_pb2.ControlGraft, sender_peer_id: ID) -> None:
        """Turn down a place in the mesh to who is not of the audience."""
        if self.may_hear(sender_peer_id, graft_msg.topicID):
            await super().handle_graft(graft_msg, sender_peer_id)
        else:
            await self.emit_prune(graft_msg.topicID, sender_peer_id, False, False)

    def mesh_heartbeat(self) -> tuple[dict[ID, list[str]], dict[ID, list[str]]]:  # type: ignore[override]
        """Mend the meshes, after taking out who is not of the audience any more."""
        gone = {
            topic: [peer for peer in peers if not self.may_hear(peer, topic)]
            for topic, peers in self.mesh.items()
        }
        for topic, peers in gone.items():
            self.mesh[topic].difference_update(peers)
        to_graft, to_prune = super().mesh_heartbeat()
        for topic, peers in gone.items():
            for peer in peers:
                to_prune[peer].append(topic)
        return to_graft, to_prune

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Send a message on, and offer it for a few heartbeats to those of the audience who come.

        Stock also keeps times and bodies of all messages ever, for modes that are off, and each
        message for every peer that is not subscribed, in case it will be.
        """
        assert self.pubsub is not None
        self.mcache.put(pubsub_msg)
        receivers = self._get_peers_to_send(
            pubsub_msg.topicIDs,
            msg_forwarder=msg_forwarder,
            origin=ID(pubsub_msg.from_id),
            msg_id=self.pubsub.get_message_id(pubsub_msg),
        )
        rpc = rpc_pb2.RPC(publish=[pubsub_msg])
        for peer_id in receivers:
            if peer_id in self.pubsub.peers:
                self.send_rpc(peer_id, rpc)
        for topic in pubsub_msg.topicIDs:
            self.time_since_last_publish[topic] = int(time.time())


class AudiencePubsub(HardenedPubsub):
    """Pubsub that lets no message of a topic leave to who is not of its audience."""

    def __init__(
        self,
        host: IHost,
        router: AudienceGossipSub,
        *,
        judge: Judge,
        blame: Blame,
        first_sequence: int | None = None,
    ) -> None:
        super().__init__(host, router, judge=judge, blame=blame, first_sequence=first_sequence)
        self._may_hear = router.may_hear

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Send an RPC, without what is not for its receiver."""
        if rpc_msg.publish or rpc_msg.control.ihave:
            self._withhold(stream.muxed_conn.peer_id, rpc_msg)
        return await super().write_msg(stream, rpc_msg)

    def _withhold(self, peer_id: ID, rpc_msg: rpc_pb2.RPC) -> None:
        for place in reversed(range(len(rpc_msg.publish))):
            topics = rpc_msg.publish[place].topicIDs
            if not all(self._may_hear(peer_id, topic) for topic in topics):
                del rpc_msg.publish[place]
        offers = rpc_msg.control.ihave
        for place in reversed(range(len(offers))):
            if not self._may_hear(peer_id, offers[place].topicID):
                del offers[place]
