import DeviceModel
import LinuxSystem

/// What a network card's cable leads to on the host, and the thread that reads it.
package final class NetworkLink: NetworkBackend {
  /// Where the frames are.
  enum Medium {
    /// A stream of frames, each after its length in four bytes, big endian: the protocol
    /// of passt and of QEMU's `-netdev stream`.
    case stream(UnixSocket)
    case tap(TAPInterface)

    /// To be read, one for each queue.
    var descriptors: [FileDescriptor] {
      switch self {
      case .stream(let socket): [socket.descriptor]
      case .tap(let interface): interface.queues
      }
    }
  }

  /// What the other end has not taken yet; frames beyond are lost.
  private static let mostUnsent = 1 << 20

  // SAFETY (thread): the reader's thread uses what is thread-safe, and the rest with the
  // device lock held.
  package var onReceive: ((NetworkFrame) -> Bool)?
  package var onConnectionChange: (() -> Void)?
  package var isConnected = true
  let medium: Medium
  /// For log lines ("passt").
  let name: String
  /// What the other end says of itself, when it is a process of ours.
  let complaints: UnixSocket?
  /// Told when `filter` is out of date.
  let addresses: HostAddresses?
  /// What the guest may not send; `nil` lets everything pass.
  private let filter: Guarded<HostFilter?>
  let ending: EventDescriptor
  let roomEvent: EventDescriptor
  let unsentEvent: EventDescriptor
  private let unsent = Guarded(UnsentBytes())
  private var thread: Thread?

  init(
    _ medium: Medium, name: String, complaints: UnixSocket? = nil,
    addresses: HostAddresses? = nil, filter: HostFilter? = nil
  ) throws(SystemError) {
    self.medium = medium
    self.name = name
    self.complaints = complaints
    self.addresses = addresses
    self.filter = Guarded(filter)
    ending = try EventDescriptor()
    roomEvent = try EventDescriptor()
    unsentEvent = try EventDescriptor()
  }

  deinit { close() }

  /// Reads no more. Idempotent. Not under the device lock.
  package func close() {
    ending.signal()
    thread?.join()
    thread = nil
  }

  package func start(lock: Lock) throws(SystemError) {
    let reader = Unsynchronized(try NetworkReader(of: self, lock: lock))
    thread = try Thread(name: "network") { reader.value.run() }
  }

  package func send(_ frame: NetworkFrame) {
    guard isConnected, filter.withLock({ $0?.admits(frame.bytes) ?? true }) else { return }
    switch medium {
    case .tap(let interface):
      interface.write(frame.queue % interface.queues.count, frame.header.bytes(), frame.bytes)
    case .stream(let socket):
      let bytes = FrameBuffer.framed(frame.bytes)
      let isLate = unsent.change { unsent in
        guard unsent.count + bytes.count <= Self.mostUnsent else { return false }
        return unsent.add(bytes, for: socket)
      }
      if isLate { unsentEvent.signal() }
    }
  }

  /// Sends what waits, as far as it can; `false` when more remains.
  func flush() -> Bool {
    guard case .stream(let socket) = medium else { return true }
    return unsent.change { unsent in
      unsent.flush(to: socket)
      return unsent.isEmpty
    }
  }

  package func hasRoom() { roomEvent.signal() }

  // MARK: What only a TAP interface has

  package var takesUnfinished: Bool {
    if case .tap = medium { true } else { false }
  }

  package var queues: Int { medium.descriptors.count }

  /// One that goes away takes no wishes; the card finds out what comes nevertheless.
  package func accept(_ offloads: NetworkOffloads) {
    guard case .tap(let interface) = medium else { return }
    var wanted: TAPInterface.Offloads = []
    if offloads.contains(.checksum) { wanted.insert(.checksum) }
    if offloads.contains(.tcp4) { wanted.insert(.tcp4) }
    if offloads.contains(.tcp6) { wanted.insert(.tcp6) }
    if offloads.contains(.congestion) { wanted.insert(.congestion) }
    try? interface.setOffloads(wanted)
  }

  package func use(queues: Int) -> Bool {
    guard case .tap(let interface) = medium else { return true }
    do {
      try interface.attach(queues)
      return true
    } catch {
      return false
    }
  }

  /// The host's addresses are others now. One too many keeps the guest from nothing but
  /// this host.
  func addressesChanged() {
    addresses?.drain()
    guard let current = try? HostAddresses.current() else { return }
    filter.withLock { $0?.own = current }
  }
}
