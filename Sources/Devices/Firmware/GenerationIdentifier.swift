import DeviceModel

/// The generation identifier ("Virtual Machine Generation ID", Microsoft, 2012): 16
/// bytes in guest memory that are other ones after the machine was copied or went back
/// to an earlier state, so that the guest can renew what must be unique.
package final class GenerationIdentifier: StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var value: [UInt8]
    /// Where the page lies in guest memory; 0 while nobody placed it.
    package var address: UInt64
  }

  /// Firmware places this page and writes where to `addressFile` (the names of QEMU's
  /// docs/specs/vmgenid, which firmware knows).
  package static let pageFile = "etc/vmgenid_guid"
  package static let addressFile = "etc/vmgenid_addr"
  package static let size = 16
  package static let pageSize = 4096
  /// OVMF looks for table headers at the start of what it places, and stops at zeros.
  package static let offsetInPage = 40

  private let memory: any GuestMemory
  private let changed: () -> Void
  private var state: State

  /// - Parameters:
  ///   - value: 16 bytes, in the order in which they lie in memory.
  ///   - changed: raises the notification; under the device lock.
  package init(
    value: [UInt8], memory: any GuestMemory, changed: @escaping () -> Void, state: State?
  ) {
    self.memory = memory
    self.changed = changed
    self.state = State(value: Self.sized(value), address: 0)
    guard let state else { return }
    self.state = State(value: Self.sized(state.value), address: state.address)
  }

  private static func sized(_ value: [UInt8]) -> [UInt8] {
    Array((value + Array(repeating: 0, count: size)).prefix(size))
  }

  package func saveState() -> State { state }

  /// The identifier stays, its place goes with the memory's contents.
  package func reset() { state.address = 0 }

  package var value: [UInt8] { state.value }

  /// The page as it is placed.
  package var page: [UInt8] {
    let head = Array(repeating: UInt8(0), count: Self.offsetInPage) + state.value
    return head + Array(repeating: 0, count: Self.pageSize - head.count)
  }

  /// The page lies there now, which firmware or whoever stands in for it says.
  package func place(at address: UInt64) { state.address = address }

  /// Firmware wrote `addressFile`.
  package func place(asWritten bytes: [UInt8]) {
    guard bytes.count == 8 else { return }
    place(at: bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) })
  }

  /// Gives the machine another identifier and tells the guest, once it knows of one.
  package func change(to value: [UInt8]) {
    state.value = Self.sized(value)
    guard state.address != 0 else { return }
    let (address, wraps) = state.address.addingReportingOverflow(UInt64(Self.offsetInPage))
    // A place outside RAM is the guest's own doing, and its loss.
    guard !wraps, write(at: address) else { return }
    changed()
  }

  private func write(at address: UInt64) -> Bool {
    // SAFETY: the pointer covers the value and does not leave the closure.
    let result = state.value.withUnsafeBytes { buffer in
      Result { () throws(GuestMemoryError) in try memory.write(at: address, from: buffer) }
    }
    if case .success = result { return true }
    return false
  }
}
