"""Kernels that are sets of items, as strict about their order as the real one, and the fabric between them.

It answers one question: who hears this frame?  ``ModelFabric.heard`` follows it from device to device, as the drawing
in ``panloom.decide.fabric_plan`` shows.
"""

from panloom.decide.fabric_plan import (
    Admission,
    Bridge,
    Default,
    FabricPort,
    Guard,
    Leg,
    Make,
    Peer,
    Rvi,
    Source,
    Station,
    Vxlan,
)
from panloom.values import MacAddress

BROADCAST = MacAddress((1 << 48) - 1)


class ModelKernel:
    """One host's kernel."""

    def __init__(self):
        self.items = set()

    def of(self, kind, **fields):
        return [
            item
            for item in self.items
            if isinstance(item, kind) and all(getattr(item, name) == value for name, value in fields.items())
        ]

    def apply(self, plan):
        for change in plan:
            (self._make if isinstance(change, Make) else self._remove)(change.item)

    def _make(self, item):
        match item:
            case Guard():
                self._drop(*self.of(FabricPort | Source | Admission))
            case FabricPort() | Source() | Admission():
                assert Guard() in self.items
            case Leg(number=number):
                self._drop(*self.of(Leg, number=number))
            case Rvi(number=number, legs=legs):
                assert legs
                assert all(self.of(Leg, number=leg) for leg in legs)
                self._drop(*self.of(Rvi, number=number))
            case Bridge(name=name) | Vxlan(name=name):
                self._make_device(item, *self.of(Bridge | Vxlan, name=name))
            case Station(port=port):
                (device,) = self.of(Vxlan, name=port)
                assert device.bridge
            case Peer(device=device, mac=mac, rvi=rvi):
                assert self.of(Vxlan, name=device)
                assert self.of(Rvi, number=rvi)
                self._drop(*self.of(Peer, device=device, mac=mac))
            case Default(device=device):
                assert self.of(Vxlan, name=device)
        self.items.add(item)

    def _make_device(self, item, before=None):
        assert before is None or type(before) is type(item), "two kinds of device of one name"
        if isinstance(item, Vxlan) and item.bridge:
            assert self.of(Bridge, name=item.bridge)
        if before is None:
            return
        if not before.whole:
            self._remove(before)
            return
        if isinstance(item, Vxlan) and before.bridge != item.bridge:
            self._drop(*self.of(Station, port=item.name))
        self._drop(before)

    def _remove(self, item):
        assert item in self.items
        self._drop(item)
        match item:
            case Guard():
                assert not self.of(FabricPort | Source | Admission)
            case Leg(number=number):
                for group in self.of(Rvi):
                    if number in group.legs:
                        self._drop(group)
                        if legs := tuple(leg for leg in group.legs if leg != number):
                            self.items.add(Rvi(group.number, legs))
                        else:
                            self._drop(*self.of(Peer, rvi=group.number))
            case Rvi(number=number):
                self._drop(*self.of(Peer, rvi=number))
            case Bridge(name=name):
                for port in self.of(Vxlan, bridge=name):
                    self._drop(port, *self.of(Station, port=port.name))
                    self.items.add(Vxlan(port.name, port.vni, port.mtu, port.mac, None, port.whole))
            case Vxlan(name=name):
                self._drop(*self.of(Peer | Default, device=name), *self.of(Station, port=name))

    def _drop(self, *items):
        self.items.difference_update(items)


class ModelFabric:
    """Hosts and the two switches between them."""

    def __init__(self, hosts, kernels):
        self._hosts = {host.place: host for host in hosts}
        self._kernels = kernels

    def heard(self, place, device, source, destination):
        """Return where a frame comes out that a member sends on a device: the hosts, each as often as it hears it."""
        return list(self._transmit(place, device, source, destination))

    def injected(self, place, address, vni, source, destination, *, fabric=0):
        """Return where a frame comes out that somebody with raw sockets at ``place`` sends to a host's address."""
        return list(self._arrive(place, fabric, address, vni, source, destination))

    def _transmit(self, place, device, source, destination):
        kernel = self._kernels[place]
        (out,) = kernel.of(Vxlan, name=device)
        peers = kernel.of(Peer, device=device, mac=destination)
        if peers:
            (group,) = kernel.of(Rvi, number=peers[0].rvi)
            ways = []
            for number in group.legs:
                (leg,) = kernel.of(Leg, number=number)
                ways.append(self._send(place, leg.address, out.vni, source, destination))
            assert all(way == ways[0] for way in ways), "the legs lead to different places"
            yield from ways[0]
            return
        for default in kernel.of(Default, device=device):
            yield from self._send(place, default.address, default.vni, source, destination)

    def _send(self, place, address, vni, source, destination):
        return [
            where
            for fabric in range(2)
            for host in self._hosts.values()
            if host.addresses[fabric] == address
            for where in self._arrive(place, fabric, address, vni, source, destination)
        ]

    def _arrive(self, sender, fabric, address, vni, source, destination):
        for host in self._hosts.values():
            if host.addresses[fabric] != address:
                continue
            kernel = self._kernels[host.place]
            outer = self._hosts[sender].addresses[fabric]
            if Guard() not in kernel.items or FabricPort(host.interfaces[fabric]) not in kernel.items:
                continue
            if not {Admission(outer, vni, source), Admission(outer, vni, None)} & kernel.items:
                continue
            for device in kernel.of(Vxlan, vni=vni):
                if device.bridge is None:
                    yield host.place
                else:
                    yield from self._switch(host.place, device, source, destination)

    def _switch(self, place, came_in, source, destination):
        kernel = self._kernels[place]
        ports = [port.name for port in kernel.of(Vxlan, bridge=came_in.bridge) if port != came_in]
        if not destination.is_multicast:
            ports = [port for port in ports if Station(port, destination) in kernel.items]
        for port in ports:
            yield from self._transmit(place, port, source, destination)
