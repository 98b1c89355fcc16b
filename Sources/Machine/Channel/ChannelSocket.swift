import DeviceModel
import LinuxSystem

/// A channel's end on the host: a Unix socket that is listened at, for one program at a
/// time; others wait until it has gone.
package final class ChannelSocket: ChannelBackend {
  private static let mostUnsent = 64 << 10

  // SAFETY (thread): the callbacks are set before the thread starts, which calls them with
  // the device lock held; the rest is thread-safe.
  package var onReceive: (([UInt8]) -> Void)?
  package var room: (() -> Int)?
  package var onWritable: (() -> Void)?
  package var onConnectionChange: (() -> Void)?
  let listener: UnixListener
  let ending: EventDescriptor
  let roomEvent: EventDescriptor
  let unsentEvent: EventDescriptor
  private let peer = Guarded(Peer())
  private var thread: Thread?

  private struct Peer {
    var socket: UnixSocket?
    var unsent = UnsentBytes()
    /// `write` took less than it was given.
    var wasRefused = false
  }

  package init(_ channel: MachineConfiguration.Channel) throws(MachineError) {
    do {
      listener = try UnixListener(at: channel.path, kind: .stream)
      try listener.descriptor.setNonBlocking(true)
      ending = try EventDescriptor()
      roomEvent = try EventDescriptor()
      unsentEvent = try EventDescriptor()
    } catch {
      throw MachineError(
        .host, "the channel \(channel.name) could not be opened at \(channel.path)", cause: error)
    }
  }

  deinit { close() }

  /// Idempotent. Not under the device lock.
  package func close() {
    ending.signal()
    thread?.join()
    thread = nil
  }

  package func start(lock: Lock) throws(SystemError) {
    let reader = Unsynchronized(try ChannelReader(of: self, lock: lock))
    thread = try Thread(name: "channel") { reader.value.run() }
  }

  package var isConnected: Bool { peer.withLock { $0.socket != nil } }

  /// Device lock held.
  func setPeer(_ socket: UnixSocket?) {
    peer.withLock { $0 = Peer(socket: socket) }
    onConnectionChange?()
  }

  package func write(_ bytes: [UInt8]) -> Int {
    let (taken, isLate) = peer.withLock { peer in
      guard let socket = peer.socket else { return (bytes.count, false) }
      var taken = 0
      var isLate = false
      while taken < bytes.count, peer.unsent.count < Self.mostUnsent {
        let part = min(bytes.count - taken, Self.mostUnsent - peer.unsent.count)
        if peer.unsent.add(bytes[taken..<taken + part], for: socket) { isLate = true }
        taken += part
      }
      if taken < bytes.count { peer.wasRefused = true }
      return (taken, isLate)
    }
    if isLate { unsentEvent.signal() }
    return taken
  }

  package func hasRoom() { roomEvent.signal() }

  /// Sends what waits, as far as it can: whether more remains, and whether the device waits
  /// for room and has some now.
  func flush() -> (remains: Bool, hasRoom: Bool) {
    peer.withLock { peer in
      if let socket = peer.socket { peer.unsent.flush(to: socket) }
      let hasRoom = peer.wasRefused && peer.unsent.count <= Self.mostUnsent / 2
      if hasRoom { peer.wasRefused = false }
      return (!peer.unsent.isEmpty, hasRoom)
    }
  }
}

/// Reads what is for the guest, as far as the device has room, and sends what was late.
/// Lives on the channel's thread.
private final class ChannelReader {
  private enum Token {
    static let ending: UInt64 = 0
    static let room: UInt64 = 1
    static let unsent: UInt64 = 2
    static let listener: UInt64 = 3
    static let peer: UInt64 = 4
  }

  private static let most = 4096

  private weak var channel: ChannelSocket?
  private let lock: Lock
  private let poller: Poller
  private var socket: UnixSocket?
  private var deviceIsFull = false
  private var isSending = false

  init(of channel: ChannelSocket, lock: Lock) throws(SystemError) {
    self.channel = channel
    self.lock = lock
    poller = try Poller()
    try poller.add(channel.ending.descriptor, token: Token.ending)
    try poller.add(channel.roomEvent.descriptor, token: Token.room)
    try poller.add(channel.unsentEvent.descriptor, token: Token.unsent)
    try poller.add(channel.listener.descriptor, token: Token.listener)
  }

  func run() {
    while let events = try? poller.wait(),
      !events.contains(where: { $0.token == Token.ending }), let channel
    {
      for event in events {
        switch event.token {
        case Token.room:
          channel.roomEvent.drain()
          deviceIsFull = false
          watch()
        case Token.unsent:
          channel.unsentEvent.drain()
          isSending = true
          watch()
        case Token.listener: accept(channel)
        default: serve(channel, event.interest)
        }
      }
    }
  }

  /// That the other end has gone is noticed even while nothing else is waited for.
  private func watch() {
    guard let socket else { return }
    var interest: Poller.Interest = []
    if !deviceIsFull { interest.insert(.readable) }
    if isSending { interest.insert(.writable) }
    try? poller.modify(socket.descriptor, interest, token: Token.peer)
  }

  private func accept(_ channel: ChannelSocket) {
    guard socket == nil, let peer = try? channel.listener.accept(),
      (try? poller.add(peer.descriptor, token: Token.peer)) != nil
    else { return }
    poller.remove(channel.listener.descriptor)
    socket = peer
    deviceIsFull = false
    isSending = false
    lock.withLock { channel.setPeer(peer) }
  }

  private func end(_ channel: ChannelSocket) {
    guard let socket else { return }
    poller.remove(socket.descriptor)
    self.socket = nil
    lock.withLock { channel.setPeer(nil) }
    try? poller.add(channel.listener.descriptor, token: Token.listener)
  }

  private func serve(_ channel: ChannelSocket, _ events: Poller.Interest) {
    if isSending {
      let (remains, hasRoom) = channel.flush()
      if hasRoom { lock.withLock { channel.onWritable?() } }
      if !remains {
        isSending = false
        watch()
      }
    }
    let isGone = !events.isDisjoint(with: [.hungUp, .failed])
    guard !deviceIsFull else { return isGone ? end(channel) : () }
    let room = lock.withLock { channel.room?() ?? 0 }
    guard room > 0, let socket else {
      deviceIsFull = true
      return isGone ? end(channel) : watch()
    }
    do {
      let message = try socket.receive(capacity: min(room, Self.most), blocking: false)
      guard !message.isEnd else { return end(channel) }
      lock.withLock { channel.onReceive?(message.bytes) }
    } catch  where error.kind == .wouldBlock || error.kind == .interrupted {
      // Only room to write.
    } catch {
      end(channel)
    }
  }
}
