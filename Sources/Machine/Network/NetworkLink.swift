import DeviceModel
import LinuxSystem

/// What a network card's cable leads to on the host, and the thread that reads it.
package final class NetworkLink: NetworkBackend {
  /// Where the frames are.
  enum Medium {
    /// A stream of frames, each after its length in four bytes, big endian: the protocol
    /// of passt and of QEMU's `-netdev stream`.
    case stream(UnixSocket)
    /// One frame to a read or write.
    case tap(FileDescriptor)

    var descriptor: FileDescriptor {
      switch self {
      case .stream(let socket): socket.descriptor
      case .tap(let descriptor): descriptor
      }
    }
  }

  /// What the other end has not taken yet; frames beyond are lost.
  private static let mostUnsent = 1 << 20

  // SAFETY (thread): the reader's thread uses what is thread-safe, and the rest with the
  // device lock held.
  package var onReceive: (([UInt8]) -> Bool)?
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

  package func send(_ frame: [UInt8]) {
    guard isConnected, filter.withLock({ $0?.admits(frame) ?? true }) else { return }
    switch medium {
    case .tap(let descriptor):
      // A full queue loses frames, as a wire would.
      _ = try? descriptor.write(frame)
    case .stream(let socket):
      let length = UInt32(truncatingIfNeeded: frame.count)
      let bytes = (0..<4).map { UInt8(truncatingIfNeeded: length >> (24 - 8 * $0)) } + frame
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

  /// The host's addresses are others now. One too many keeps the guest from nothing but
  /// this host.
  func addressesChanged() {
    addresses?.drain()
    guard let current = try? HostAddresses.current() else { return }
    filter.withLock { $0?.own = current }
  }
}

/// Reads frames for the guest, as far as its card takes them. Lives on the network thread.
private final class NetworkReader {
  private enum Token {
    static let ending: UInt64 = 0
    static let room: UInt64 = 1
    static let unsent: UInt64 = 2
    static let complaint: UInt64 = 3
    static let source: UInt64 = 4
    static let addresses: UInt64 = 5
  }

  /// A whole frame of the protocol; what is longer is not Ethernet, and ends the link.
  private static let longest = 65535 + 18
  private static let mostComplaint = 1024

  private weak var link: NetworkLink?
  private let lock: Lock
  private let poller: Poller
  private var buffer = FrameBuffer(longest: longest)
  /// Frames that the card has no buffer for.
  private var refused: [[UInt8]] = []
  private var isSending = false
  private var complaint: [UInt8] = []

  init(of link: NetworkLink, lock: Lock) throws(SystemError) {
    self.link = link
    self.lock = lock
    poller = try Poller()
    try poller.add(link.ending.descriptor, token: Token.ending)
    try poller.add(link.roomEvent.descriptor, token: Token.room)
    try poller.add(link.unsentEvent.descriptor, token: Token.unsent)
    if let complaints = link.complaints {
      try poller.add(complaints.descriptor, token: Token.complaint)
    }
    if let addresses = link.addresses {
      try poller.add(addresses.descriptor, token: Token.addresses)
    }
    try poller.add(link.medium.descriptor, token: Token.source)
  }

  func run() {
    while let events = try? poller.wait(),
      !events.contains(where: { $0.token == Token.ending }), let link
    {
      for event in events {
        switch event.token {
        case Token.room:
          link.roomEvent.drain()
          offer([], link)
        case Token.unsent:
          link.unsentEvent.drain()
          watch(link, isSending: true)
        case Token.complaint: listen(link)
        case Token.addresses: link.addressesChanged()
        default:
          if isSending, link.flush() { watch(link, isSending: false) }
          if refused.isEmpty { read(link) }
        }
      }
    }
  }

  /// Waits for room in the socket, and for frames unless the card has no buffers.
  private func watch(_ link: NetworkLink, isSending: Bool) {
    self.isSending = isSending
    guard link.isConnected else { return }
    poller.remove(link.medium.descriptor)
    var interest: Poller.Interest = []
    if refused.isEmpty { interest.insert(.readable) }
    if isSending { interest.insert(.writable) }
    guard !interest.isEmpty else { return }
    try? poller.add(link.medium.descriptor, interest, token: Token.source)
  }

  private func read(_ link: NetworkLink) {
    do {
      switch link.medium {
      case .tap(let descriptor):
        offer([try descriptor.read(upTo: Self.longest)], link)
      case .stream(let socket):
        let message = try socket.receive(blocking: false)
        guard !message.isEnd, let frames = buffer.take(message.bytes) else { return end(link) }
        offer(frames, link)
      }
    } catch  where error.kind == .wouldBlock || error.kind == .interrupted {
      // Nothing came after all.
    } catch {
      end(link)
    }
  }

  /// Hands frames to the card, in order, and keeps those that it refuses.
  private func offer(_ frames: [[UInt8]], _ link: NetworkLink) {
    let wasRefused = !refused.isEmpty
    let all = refused + frames
    refused = lock.withLock {
      for (index, frame) in all.enumerated() where link.onReceive?(frame) == false {
        return Array(all[index...])
      }
      return []
    }
    if wasRefused != !refused.isEmpty { watch(link, isSending: isSending) }
  }

  /// What the process at the other end writes to its standard error.
  private func listen(_ link: NetworkLink) {
    guard let complaints = link.complaints else { return }
    if let message = try? complaints.receive(capacity: 4096, blocking: false), !message.isEnd {
      complaint = (complaint + message.bytes).suffix(Self.mostComplaint)
    } else {
      poller.remove(complaints.descriptor)
    }
  }

  private func end(_ link: NetworkLink) {
    poller.remove(link.medium.descriptor)
    listen(link)
    let lines = String(decoding: complaint, as: UTF8.self).split(separator: "\n")
    let last = lines.last { !$0.contains("syslog") }.map { ": \($0)" } ?? ""
    StandardError.report("\(link.name) ended, and with it the network card's link\(last)")
    refused = []
    lock.withLock {
      link.isConnected = false
      link.onConnectionChange?()
    }
  }
}

/// Takes a stream of frames apart, each after its length in four bytes, big endian.
package struct FrameBuffer {
  private let longest: Int
  private var bytes: [UInt8] = []

  package init(longest: Int) { self.longest = longest }

  /// The frames that are complete now; `nil` when the stream makes no sense.
  package mutating func take(_ part: [UInt8]) -> [[UInt8]]? {
    bytes += part
    var frames: [[UInt8]] = []
    var start = 0
    while bytes.count - start >= 4 {
      let length = bytes[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
      guard length <= longest else { return nil }
      guard bytes.count - start - 4 >= length else { break }
      frames.append(Array(bytes[start + 4..<start + 4 + length]))
      start += 4 + length
    }
    bytes.removeFirst(start)
    return frames
  }
}
