import DeviceModel

/// Where messages of a function end. `Machine` implements it; device lock held.
package protocol MessageInterrupts: AnyObject {
  /// From now on `signal` of `vector` is a write of `data` to `address`.
  func route(vector: Int, address: UInt64, data: UInt32)

  /// Sends the message of a vector, which was routed before.
  func signal(vector: Int)
}

/// MSI-X of one function: capability, table and pending bits (PCI 3.0, section 6.8.2).
///
/// The owner decodes `table` and `pendingBits` in the memory that its base address
/// register names, and asks `isEnabled` to choose between messages and INTx.
package final class MSIX {
  package struct Entry: Codable, Sendable, Equatable {
    var address: UInt64 = 0
    var data: UInt32 = 0
    /// Bit 0: masked.
    var control: UInt32 = 1

    var isMasked: Bool { control & 1 != 0 }
  }

  package struct State: Codable, Sendable {
    package var version = 1
    var entries: [Entry]
    var pending: [Bool]
  }

  private static let capabilityID: UInt8 = 0x11
  private static let enable: UInt32 = 1 << 15
  private static let functionMask: UInt32 = 1 << 14
  package static let maximumVectors = 2048

  private unowned let function: PCIFunction
  private let delivery: any MessageInterrupts
  private let capability: Int
  private var entries: [Entry]
  private var pending: [Bool]
  /// What `delivery` was told last.
  private var routed: [Entry?]
  private(set) package lazy var table: any BusTarget = Table(self)
  private(set) package lazy var pendingBits: any BusTarget = PendingBits(self)

  /// Adds the capability. Call before the function is restored.
  ///
  /// - Parameters:
  ///   - vectors: 1 … 2048.
  ///   - bar: the base address register that `tableOffset` and `pendingOffset` count in.
  package init(
    _ function: PCIFunction, vectors: Int, bar: UInt8, tableOffset: UInt32,
    pendingOffset: UInt32, delivery: any MessageInterrupts, state: State?
  ) {
    self.function = function
    self.delivery = delivery
    let count = min(max(vectors, 1), Self.maximumVectors)
    func word(_ offset: UInt32) -> [UInt8] {
      LittleEndian.bytes(offset & ~7 | UInt32(bar & 7))
    }
    capability = function.addCapability(
      Self.capabilityID,
      LittleEndian.bytes(UInt16(count - 1)) + word(tableOffset) + word(pendingOffset),
      writable: [0x00, 0xC0])
    entries = Array(repeating: Entry(), count: count)
    pending = Array(repeating: false, count: count)
    routed = Array(repeating: nil, count: count)
    if let state, state.entries.count == count, state.pending.count == count {
      entries = state.entries
      pending = state.pending
    }
  }

  package var count: Int { entries.count }

  package func saveState() -> State { State(entries: entries, pending: pending) }

  package func reset() {
    entries = Array(repeating: Entry(), count: count)
    pending = Array(repeating: false, count: count)
  }

  private var control: UInt32 { function.configuration.read(capability + 2, width: 2) }
  package var isEnabled: Bool { control & Self.enable != 0 }

  /// The function's owner passes on writes to configuration space, and calls this
  /// when the function was restored.
  package func controlChanged() { for vector in entries.indices { update(vector) } }

  package func covers(_ range: Range<Int>) -> Bool {
    range.overlaps(capability..<capability + 4)
  }

  /// Sends a message, or remembers to while the vector is masked. Nothing happens for
  /// a vector that there is not, or while MSI-X is off.
  package func signal(_ vector: Int) {
    guard isEnabled, entries.indices.contains(vector) else { return }
    pending[vector] = true
    update(vector)
  }

  /// Routes a vector that may send and sends what it owes.
  private func update(_ vector: Int) {
    let entry = entries[vector]
    guard isEnabled, control & Self.functionMask == 0, !entry.isMasked else { return }
    if routed[vector]?.address != entry.address || routed[vector]?.data != entry.data {
      delivery.route(vector: vector, address: entry.address, data: entry.data)
      routed[vector] = entry
    }
    guard pending[vector] else { return }
    pending[vector] = false
    delivery.signal(vector: vector)
  }

  // MARK: Registers

  fileprivate func readTable(_ offset: UInt64) -> UInt32 {
    let index = Int(truncatingIfNeeded: offset / 16)
    guard offset / 16 < UInt64(count) else { return 0 }
    switch offset & 12 {
    case 0: return UInt32(truncatingIfNeeded: entries[index].address)
    case 4: return UInt32(truncatingIfNeeded: entries[index].address >> 32)
    case 8: return entries[index].data
    default: return entries[index].control
    }
  }

  fileprivate func writeTable(_ offset: UInt64, _ value: UInt32) {
    let index = Int(truncatingIfNeeded: offset / 16)
    guard offset / 16 < UInt64(count) else { return }
    switch offset & 12 {
    case 0:
      entries[index].address = entries[index].address & ~0xFFFF_FFFF | UInt64(value & ~3)
    case 4:
      entries[index].address = entries[index].address & 0xFFFF_FFFF | UInt64(value) << 32
    case 8: entries[index].data = value
    default: entries[index].control = value & 1
    }
    update(index)
  }

  fileprivate func readPending(_ offset: UInt64) -> UInt32 {
    var value: UInt32 = 0
    let first = offset * 8
    for bit in 0..<UInt64(32) where first + bit < UInt64(count) && pending[Int(first + bit)] {
      value |= 1 << UInt32(bit)
    }
    return value
  }

  /// Entries of 16 bytes; dwords are the least that software may write.
  private final class Table: BusTarget {
    let maximumAccessWidth = 4
    private unowned let msix: MSIX

    init(_ msix: MSIX) { self.msix = msix }

    func read(offset: UInt64, width: Int) -> UInt64 {
      UInt64(msix.readTable(offset & ~3)) >> ((offset & 3) * 8)
    }

    func write(offset: UInt64, width: Int, value: UInt64) {
      guard width == 4, offset & 3 == 0 else { return }
      msix.writeTable(offset, UInt32(truncatingIfNeeded: value))
    }
  }

  private final class PendingBits: BusTarget {
    let maximumAccessWidth = 4
    private unowned let msix: MSIX

    init(_ msix: MSIX) { self.msix = msix }

    func read(offset: UInt64, width: Int) -> UInt64 {
      UInt64(msix.readPending(offset & 0xFFFC)) >> ((offset & 3) * 8)
    }

    func write(offset: UInt64, width: Int, value: UInt64) {}
  }
}
