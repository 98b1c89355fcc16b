import KVM

/// Ports whose devices keep what is written to them until the guest, or a look at the screen,
/// wants to know: such writes may pile up in KVM rather than leave guest mode one by one.
/// Whatever else leaves it has them carried out before.
///
/// A zone is told to KVM once its guest has written to it often: that makes the host wait for
/// all vCPUs, and most clones never do.
struct PortCoalescing {
  private struct Zone {
    let start: UInt16
    let size: UInt16
    var isPartOfDisplay = false
    var writes = 0
    var isCoalesced = false
  }

  /// The index of the RTC (not its data, which has a clock run or stand), POST codes, and the
  /// VGA's registers but for input status and feature control.
  private var zones = [
    Zone(start: 0x70, size: 1), Zone(start: 0x80, size: 1),
    Zone(start: 0x3C0, size: 16, isPartOfDisplay: true),
    Zone(start: 0x3D4, size: 2, isPartOfDisplay: true),
  ]
  private let kvm: KVMMachine

  private static let enough = 64

  init(_ kvm: KVMMachine) { self.kvm = kvm }

  /// Notes a write that left guest mode. What KVM does not take is left as it is.
  ///
  /// - Parameter includesDisplay: whether nobody waits to be told of accesses to the display.
  mutating func note(_ port: UInt16, includesDisplay: Bool) {
    guard
      let index = zones.firstIndex(where: { port >= $0.start && port - $0.start < $0.size }),
      !zones[index].isCoalesced, includesDisplay || !zones[index].isPartOfDisplay
    else { return }
    zones[index].writes += 1
    guard zones[index].writes == Self.enough, kvm.canCoalescePortWrites else { return }
    let (start, size) = (zones[index].start, zones[index].size)
    zones[index].isCoalesced = (try? kvm.coalesceWrites(.ports(start, size: size))) != nil
  }

  /// Has each write to the display leave guest mode, until there are many again.
  mutating func stopForDisplay() throws(KVMError) {
    for index in zones.indices where zones[index].isPartOfDisplay {
      zones[index].writes = 0
      guard zones[index].isCoalesced else { continue }
      try kvm.stopCoalescingWrites(.ports(zones[index].start, size: zones[index].size))
      zones[index].isCoalesced = false
    }
  }
}
