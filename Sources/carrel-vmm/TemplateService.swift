import Glibc
import LinuxSystem
import QMP

/// A template's socket: takes requests, and has copies of this process be the clones. One
/// thread, which waits for nothing but all of it at once.
struct TemplateService {
  private static let mostClients = 64
  private static let listenerToken: UInt64 = 0
  private static let signalToken: UInt64 = 1
  /// How long nothing happens before a copy is made ready: a guest that was just started has
  /// the processors to itself.
  private static let quietMilliseconds: Int32 = 2

  private struct Client {
    let socket: UnixSocket
    /// Its request is being carried out; the next one is not read before.
    var isWaiting = false
  }

  /// A copy of this process that does not run its guest yet.
  private struct Copy {
    let process: Int32
    let socket: UnixSocket
    /// Who asked for it; `nil` while nobody did.
    var client: UInt64?
  }

  private let listener: UnixListener
  private let signals: SignalDescriptor
  private let poller: Poller
  private let prepared: Int
  private var clients: [UInt64: Client] = [:]
  private var copies: [UInt64: Copy] = [:]
  /// Copies that were asked for nothing yet, the oldest first.
  private var ready: [UInt64] = []
  private var requests: [(client: UInt64, message: UnixSocket.Message)] = []
  private var nextToken: UInt64 = 2
  /// Given up for a moment when there is no descriptor left, to turn somebody away.
  private var reserve: FileDescriptor?
  /// None is prepared before somebody asks again: the last one ended by itself.
  private var isDiscouraged = false
  private var isOver = false

  /// - Parameters:
  ///   - prepared: how many copies are kept ready.
  ///   - signals: those that end it, and SIGCHLD.
  init(at path: String, prepared: Int, _ signals: SignalDescriptor) throws {
    self.prepared = prepared
    self.signals = signals
    listener = try UnixListener(at: path, kind: .packets)
    try listener.descriptor.setNonBlocking(true)
    poller = try Poller()
    reserve = try FileDescriptor.open("/dev/null")
    try poller.add(listener.descriptor, token: Self.listenerToken)
    try poller.add(signals.descriptor, token: Self.signalToken)
  }

  /// Serves until a signal says otherwise.
  ///
  /// - Returns: in a copy, its connection with this process; `nil` here.
  mutating func run() throws -> UnixSocket? {
    while true {
      let isIdle = requests.isEmpty && !copies.values.contains { $0.client != nil }
      let lacks = ready.count < prepared && isIdle && !isDiscouraged
      let events = try poller.wait(milliseconds: lacks ? Self.quietMilliseconds : -1)
      if events.isEmpty && lacks {
        if case .copy(let socket) = prepare() { return socket }
      }
      for event in events { handle(event) }
      if isOver { return nil }
      while !requests.isEmpty {
        if let socket = carryOutNext() { return socket }
      }
    }
  }

  private mutating func handle(_ event: Poller.Event) {
    switch event.token {
    case Self.listenerToken: accept()
    case Self.signalToken: takeSignals()
    case let token where clients[token] != nil: receive(from: token)
    case let token: hear(token)
    }
  }

  private mutating func takeSignals() {
    while let signal = signals.next() {
      if signal != .child { isOver = true }
    }
    // Their sockets tell what became of them.
    while let ended = try? ProcessFork.reap() { _ = ended }
  }

  // MARK: Those who ask

  private mutating func accept() {
    while true {
      do {
        admit(try listener.accept())
      } catch {
        guard error.kind != .wouldBlock else { return }
        guard reserve != nil else { return }
        // Nobody would be told, and the listener be ready for ever.
        reserve = nil
        _ = try? listener.accept()
        reserve = try? FileDescriptor.open("/dev/null")
        return
      }
    }
  }

  private mutating func admit(_ socket: UnixSocket) {
    guard let peer = try? socket.peerCredentials(), [0, ProcessFork.user].contains(peer.user)
    else {
      return refuse(socket, "This template serves the user that it runs as, and root")
    }
    guard clients.count < Self.mostClients else {
      return refuse(socket, "There are \(Self.mostClients) connections already")
    }
    let token = takeToken()
    guard (try? poller.add(socket.descriptor, token: token)) != nil else {
      return refuse(socket, "There is no room for another connection")
    }
    clients[token] = Client(socket: socket)
  }

  private func refuse(_ socket: UnixSocket, _ problem: String) {
    _ = try? socket.send(CloneAnswer.refused(problem).encoded, blocking: false)
  }

  private mutating func takeToken() -> UInt64 {
    defer { nextToken += 1 }
    return nextToken
  }

  private mutating func receive(from token: UInt64) {
    guard let socket = clients[token]?.socket else { return }
    // It went without waiting for its answer.
    guard clients[token]?.isWaiting == false else { return drop(token) }
    do {
      let message = try socket.receive(capacity: CloneRequest.longest, blocking: false)
      guard !message.isEnd else { return drop(token) }
      guard !message.isTruncated else {
        return answer(
          token,
          .refused("The request is longer than \(CloneRequest.longest) bytes, or has too much"))
      }
      // What is no request costs no process.
      _ = try CloneRequest(parsing: message.bytes)
      clients[token]?.isWaiting = true
      // Only its end is heard of until it has its answer.
      try poller.modify(socket.descriptor, .peerClosed, token: token)
      requests.append((token, message))
    } catch let error as QMPError {
      answer(token, .refused(error.context))
    } catch let error as SystemError where error.kind == .wouldBlock {
      return
    } catch {
      drop(token)
    }
  }

  private mutating func drop(_ token: UInt64) {
    guard let client = clients.removeValue(forKey: token) else { return }
    poller.remove(client.socket.descriptor)
  }

  private mutating func answer(_ token: UInt64, _ answer: CloneAnswer) {
    guard let client = clients[token] else { return }
    do {
      // One who does not read answers has had enough of them.
      _ = try client.socket.send(answer.encoded, blocking: false)
      if client.isWaiting { try poller.modify(client.socket.descriptor, .readable, token: token) }
      clients[token]?.isWaiting = false
    } catch {
      drop(token)
    }
  }

  // MARK: Copies

  private enum Made {
    case nothing(SystemError)
    case original(UInt64)
    case copy(UnixSocket)
  }

  private mutating func fork() -> Made {
    do throws(SystemError) {
      let (ours, theirs) = try UnixSocket.pair(kind: .packets)
      let token = takeToken()
      switch try ProcessFork.fork() {
      case .copy: return .copy(theirs)
      case .original(let process):
        // Should this fail, the copy hears of the end, and ends.
        try poller.add(ours.descriptor, token: token)
        copies[token] = Copy(process: process, socket: ours)
        return .original(token)
      }
    } catch {
      return .nothing(error)
    }
  }

  private mutating func prepare() -> Made {
    let made = fork()
    switch made {
    case .original(let token): ready.append(token)
    case .nothing: isDiscouraged = true
    case .copy: break
    }
    return made
  }

  /// - Returns: in a copy, its connection with this process.
  private mutating func carryOutNext() -> UnixSocket? {
    let (client, message) = requests.removeFirst()
    guard clients[client] != nil else { return nil }
    isDiscouraged = false
    while !ready.isEmpty {
      if send(message, to: ready.removeFirst(), for: client) { return nil }
    }
    switch fork() {
    case .copy(let socket): return socket
    case .nothing(let error):
      answer(client, .refused("The host has no room for another process: \(error)"))
    case .original(let token):
      if !send(message, to: token, for: client) {
        answer(client, .refused("The clone's process ended before it was one"))
      }
    }
    return nil
  }

  private mutating func send(
    _ message: UnixSocket.Message, to token: UInt64, for client: UInt64
  ) -> Bool {
    guard let copy = copies[token] else { return false }
    guard
      (try? copy.socket.send(
        message.bytes, descriptors: message.descriptors, blocking: false)) != nil
    else {
      forget(token)
      return false
    }
    copies[token]?.client = client
    return true
  }

  private mutating func forget(_ token: UInt64) {
    guard let copy = copies.removeValue(forKey: token) else { return }
    poller.remove(copy.socket.descriptor)
    ready.removeAll { $0 == token }
  }

  /// A copy has something to say, or is no more.
  private mutating func hear(_ token: UInt64) {
    guard let copy = copies[token] else { return }
    let message = try? copy.socket.receive(blocking: false)
    forget(token)
    guard let client = copy.client else {
      isDiscouraged = true
      return
    }
    guard clients[client] != nil else {
      // Whoever asked for it is gone: nobody would know of it.
      kill(copy.process, SIGKILL)
      return
    }
    let said = message.flatMap { CloneAnswer(parsing: $0.bytes) }
    answer(client, said ?? .refused("The clone's process \(copy.process) ended unexpectedly"))
  }
}
