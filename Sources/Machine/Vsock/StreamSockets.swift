import DeviceModel
import LinuxSystem

/// A guest's sockets as Unix sockets of the host, as other VMMs have them: whoever connects
/// to `PATH` and sends `CONNECT 1234` and a line feed talks with the guest's port 1234, once
/// `OK` and a number came back; a guest that connects to port 1234 of the host reaches
/// whoever listens at `PATH_1234`.
package final class StreamSockets: StreamBackend {
  private static let mostStreams = 512

  // SAFETY (thread): set before the thread starts, which calls it with the device lock held.
  package var onConnect: ((any HostStream, UInt32) -> Void)?
  private let path: String
  private let listener: UnixListener
  private let ending: EventDescriptor
  private let wake: EventDescriptor
  /// What the device has for the thread to do.
  private let work = Guarded<[SocketStream]>([])
  private var thread: Thread?

  package init(path: String) throws(MachineError) {
    self.path = path
    do {
      listener = try UnixListener(at: path, kind: .stream)
      try listener.descriptor.setNonBlocking(true)
      ending = try EventDescriptor()
      wake = try EventDescriptor()
    } catch {
      throw MachineError(.host, "the guest's sockets could not be opened at \(path)", cause: error)
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
    let server = Unsynchronized(
      try StreamServer(
        self, lock: lock, listener: listener, ending: ending, wake: wake, most: Self.mostStreams))
    thread = try Thread(name: "vsock") { server.value.run() }
  }

  package func connect(toHostPort port: UInt32) -> any HostStream {
    let stream = SocketStream(self, connectingTo: "\(path)_\(port)")
    request(stream)
    return stream
  }

  /// Has the thread look after a stream.
  func request(_ stream: SocketStream) {
    work.change { $0.append(stream) }
    wake.signal()
  }

  fileprivate func takeWork() -> [SocketStream] {
    var taken: [SocketStream] = []
    work.change { work in
      taken = work
      work = []
    }
    return taken
  }
}

/// The host's end of one connection. The device lock guards the callbacks, `state` the rest.
final class SocketStream: HostStream {
  static let mostUnsent = 64 << 10

  struct State {
    var socket: UnixSocket?
    /// Where to connect to, until that was tried.
    var path: String?
    var unsent = UnsentBytes()
    var wasRefused = false
    /// The guest sends nothing more.
    var isFinished = false
    var isClosed = false
  }

  var onOpen: (() -> Void)?
  var onReceive: (([UInt8]) -> Void)?
  var room: (() -> Int)?
  var onWritable: (() -> Void)?
  var onEnd: ((Bool) -> Void)?
  let state: Guarded<State>
  private weak var sockets: StreamSockets?

  init(_ sockets: StreamSockets, connectingTo path: String) {
    self.sockets = sockets
    state = Guarded(State(path: path))
  }

  init(_ sockets: StreamSockets, _ socket: UnixSocket) {
    self.sockets = sockets
    state = Guarded(State(socket: socket))
  }

  func accept(hostPort: UInt32) { _ = write(Array("OK \(hostPort)\n".utf8)) }

  func write(_ bytes: [UInt8]) -> Int {
    let (taken, isLate) = state.withLock { state in
      guard let socket = state.socket, !state.isClosed else { return (bytes.count, false) }
      let taken = min(bytes.count, max(0, Self.mostUnsent - state.unsent.count))
      if taken < bytes.count { state.wasRefused = true }
      return (taken, state.unsent.add(bytes.prefix(taken), for: socket))
    }
    if isLate { sockets?.request(self) }
    return taken
  }

  func hasRoom() { sockets?.request(self) }

  func finish() {
    state.change { $0.isFinished = true }
    sockets?.request(self)
  }

  func close() {
    (onOpen, onReceive, room, onWritable, onEnd) = (nil, nil, nil, nil, nil)
    state.change { $0.isClosed = true }
    sockets?.request(self)
  }
}

/// Serves all connections. Lives on the thread of the guest's sockets.
private final class StreamServer {
  private enum Token {
    static let ending: UInt64 = 0
    static let wake: UInt64 = 1
    static let listener: UInt64 = 2
    static let streams: UInt64 = 3
  }

  private struct Served {
    let stream: SocketStream
    let socket: UnixSocket
    /// What came of the line that says which port of the guest is wanted; `nil` after it.
    var line: [UInt8]?
    var interest: Poller.Interest = .readable
    /// The program sends nothing more.
    var hasEnded = false
    /// The device has no room.
    var isFull = false
    /// The guest's end was passed on.
    var isShut = false
    /// Both ends are over for the device; what the guest sent before still has to arrive.
    var isLeaving = false
  }

  private static let partSize = 16 << 10
  /// `CONNECT` and a number.
  private static let longestLine = 32

  private weak var sockets: StreamSockets?
  private let lock: Lock
  private let listener: UnixListener
  private let wake: EventDescriptor
  private let poller: Poller
  private let most: Int
  private var served: [UInt64: Served] = [:]
  private var tokens: [ObjectIdentifier: UInt64] = [:]
  private var nextToken = Token.streams
  private var accepts = true

  init(
    _ sockets: StreamSockets, lock: Lock, listener: UnixListener, ending: EventDescriptor,
    wake: EventDescriptor, most: Int
  ) throws(SystemError) {
    self.sockets = sockets
    self.lock = lock
    self.listener = listener
    self.wake = wake
    self.most = most
    poller = try Poller()
    try poller.add(ending.descriptor, token: Token.ending)
    try poller.add(wake.descriptor, token: Token.wake)
    try poller.add(listener.descriptor, token: Token.listener)
  }

  func run() {
    while let events = try? poller.wait(),
      !events.contains(where: { $0.token == Token.ending }), let sockets
    {
      for event in events {
        switch event.token {
        case Token.wake:
          wake.drain()
          for stream in sockets.takeWork() { look(after: stream) }
        case Token.listener: accept(sockets)
        default: serve(event.token, event.interest, sockets)
        }
      }
    }
  }

  // MARK: Beginning

  private func accept(_ sockets: StreamSockets) {
    guard served.count < most, let socket = try? listener.accept() else { return }
    // What it says first is for this thread.
    add(SocketStream(sockets, socket), socket, line: [])
  }

  private func add(_ stream: SocketStream, _ socket: UnixSocket, line: [UInt8]?) {
    let token = nextToken
    nextToken += 1
    guard (try? socket.descriptor.setNonBlocking(true)) != nil,
      (try? poller.add(socket.descriptor, token: token)) != nil
    else { return }
    served[token] = Served(stream: stream, socket: socket, line: line)
    tokens[ObjectIdentifier(stream)] = token
    watchListener()
  }

  private func watchListener() {
    let accepts = served.count < most
    guard accepts != self.accepts else { return }
    self.accepts = accepts
    if accepts {
      try? poller.add(listener.descriptor, token: Token.listener)
    } else {
      poller.remove(listener.descriptor)
    }
  }

  /// The device did something to the stream.
  private func look(after stream: SocketStream) {
    let (path, isClosed) = stream.state.withLock { ($0.path, $0.isClosed) }
    if let path, !isClosed { connect(stream, to: path) }
    guard let token = tokens[ObjectIdentifier(stream)] else { return }
    if isClosed {
      served[token]?.isLeaving = true
      return leave(token)
    }
    served[token]?.isFull = false
    finishIfDone(token)
    watch(token)
  }

  private func connect(_ stream: SocketStream, to path: String) {
    let socket =
      served.count < most
      ? try? UnixSocket.connect(to: path, kind: .stream, blocking: false) : nil
    stream.state.change {
      $0.path = nil
      $0.socket = socket
    }
    if let socket { add(stream, socket, line: nil) }
    lock.withLock {
      if socket != nil, tokens[ObjectIdentifier(stream)] != nil {
        stream.onOpen?()
      } else {
        stream.onEnd?(true)
      }
    }
  }

  /// Ends the connection once all that the guest sent is on its way.
  private func leave(_ token: UInt64) {
    guard let one = served[token] else { return }
    _ = flush(token)
    guard one.stream.state.withLock({ $0.unsent.isEmpty }) else { return watch(token) }
    remove(token)
  }

  private func remove(_ token: UInt64) {
    guard let gone = served.removeValue(forKey: token) else { return }
    poller.remove(gone.socket.descriptor)
    tokens[ObjectIdentifier(gone.stream)] = nil
    gone.stream.state.change { $0.socket = nil }
    gone.socket.shutDown()
    watchListener()
  }

  // MARK: Serving

  private func watch(_ token: UInt64) {
    guard let one = served[token] else { return }
    var interest: Poller.Interest = []
    if !one.isFull && !one.hasEnded && !one.isLeaving { interest.insert(.readable) }
    if one.stream.state.withLock({ !$0.unsent.isEmpty }) { interest.insert(.writable) }
    guard interest != one.interest else { return }
    served[token]?.interest = interest
    try? poller.modify(one.socket.descriptor, interest, token: token)
  }

  private func serve(_ token: UInt64, _ events: Poller.Interest, _ sockets: StreamSockets) {
    guard let one = served[token] else { return }
    guard !one.isLeaving else {
      return events.isDisjoint(with: [.hungUp, .failed]) ? leave(token) : remove(token)
    }
    if flush(token) { lock.withLock { one.stream.onWritable?() } }
    finishIfDone(token)
    if one.line != nil {
      readLine(token, sockets)
    } else if !one.isFull && !one.hasEnded {
      receive(token)
    }
    if !events.isDisjoint(with: [.hungUp, .failed]), served[token]?.isFull != true {
      gone(token)
    }
    watch(token)
  }

  /// Sends what waits; says whether the device waits for room and has some now.
  private func flush(_ token: UInt64) -> Bool {
    guard let one = served[token] else { return false }
    return one.stream.state.withLock { state in
      state.unsent.flush(to: one.socket)
      let hasRoom = state.wasRefused && state.unsent.count <= SocketStream.mostUnsent / 2
      if hasRoom { state.wasRefused = false }
      return hasRoom
    }
  }

  /// Passes on that the guest sends nothing more, after all that it sent.
  private func finishIfDone(_ token: UInt64) {
    guard let one = served[token], !one.isShut,
      one.stream.state.withLock({ $0.isFinished && $0.unsent.isEmpty })
    else { return }
    served[token]?.isShut = true
    one.socket.shutDownSending()
  }

  private func receive(_ token: UInt64) {
    guard let one = served[token] else { return }
    let room = lock.withLock { one.stream.room?() ?? 0 }
    guard room > 0 else {
      served[token]?.isFull = true
      return
    }
    do {
      let message = try one.socket.receive(capacity: min(room, Self.partSize), blocking: false)
      if message.isEnd {
        served[token]?.hasEnded = true
        lock.withLock { one.stream.onEnd?(false) }
      } else {
        lock.withLock { one.stream.onReceive?(message.bytes) }
      }
    } catch  where error.kind == .wouldBlock || error.kind == .interrupted {
      // Only room to write.
    } catch {
      gone(token)
    }
  }

  /// The program is gone both ways.
  private func gone(_ token: UInt64) {
    guard let one = served[token] else { return }
    remove(token)
    lock.withLock { one.stream.onEnd?(true) }
  }

  // MARK: The line that a program of the host begins with

  private func readLine(_ token: UInt64, _ sockets: StreamSockets) {
    guard let one = served[token], var line = one.line else { return }
    // Byte by byte: what follows the line is for the guest.
    while true {
      do {
        let message = try one.socket.receive(capacity: 1, blocking: false)
        guard let byte = message.bytes.first, line.count < Self.longestLine else {
          return remove(token)
        }
        guard byte != 0x0A else { break }
        line.append(byte)
      } catch  where error.kind == .wouldBlock || error.kind == .interrupted {
        served[token]?.line = line
        return
      } catch {
        return remove(token)
      }
    }
    let words = String(decoding: line, as: UTF8.self).split(separator: " ")
    guard words.count == 2, words[0] == "CONNECT", let port = UInt32(words[1]) else {
      return remove(token)
    }
    served[token]?.line = nil
    lock.withLock { sockets.onConnect?(one.stream, port) }
  }
}
