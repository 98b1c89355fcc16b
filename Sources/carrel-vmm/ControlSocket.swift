import LinuxSystem
import QMP

/// The control socket: QMP for any number of clients, on a thread of its own.
///
/// A client that does not read is dropped once a mebibyte waits for it. Every client
/// that has negotiated gets every event.
final class ControlSocket: Sendable {
  private struct Stamped {
    var event: QMPEvent
    var seconds: Int64
    var microseconds: Int64
  }

  private struct Inbox {
    var events: [Stamped] = []
    var isEnding = false
  }

  private let inbox = Guarded(Inbox())
  private let wake: EventDescriptor
  private let thread: Thread
  private let path: String

  /// Listens at `path` (mode 0600) until `finish`.
  ///
  /// - Throws: kind `addressInUse` when another process listens there.
  init(at path: String, machine: any QMPMachine & Sendable) throws(SystemError) {
    let listener = try UnixListener(at: path, kind: .stream)
    try listener.descriptor.setNonBlocking(true)
    let wake = try EventDescriptor()
    let poller = try Poller()
    try poller.add(listener.descriptor, token: Service.listenerToken)
    try poller.add(wake.descriptor, token: Service.wakeToken)
    let inbox = inbox
    thread = try Thread(name: "control") {
      var service = Service(listener: listener, poller: poller, machine: machine)
      while !service.isOver {
        service.step(wake: wake) {
          inbox.withLock { inbox in
            defer { inbox.events = [] }
            return (inbox.events, inbox.isEnding)
          }
        }
      }
    }
    self.wake = wake
    self.path = path
  }

  /// Tells every client. Any thread.
  func announce(_ event: QMPEvent) {
    let now = WallClock.now
    let stamped = Stamped(
      event: event, seconds: now.seconds, microseconds: Int64(now.nanoseconds / 1000))
    inbox.withLock { $0.events.append(stamped) }
    wake.signal()
  }

  /// Sends what was announced, as far as clients take it at once, closes and removes
  /// the socket. Not from the control thread.
  func finish() {
    inbox.withLock { $0.isEnding = true }
    wake.signal()
    thread.join()
    try? Files.remove(path)
  }

  /// The loop's own state; lives on the control thread only.
  private struct Service {
    static let listenerToken: UInt64 = 0
    static let wakeToken: UInt64 = 1
    static let maximumClients = 32

    private let listener: UnixListener
    private let poller: Poller
    private let machine: any QMPMachine & Sendable
    private var clients: [UInt64: Client] = [:]
    private var nextToken: UInt64 = 2
    private(set) var isOver = false

    init(listener: UnixListener, poller: Poller, machine: any QMPMachine & Sendable) {
      self.listener = listener
      self.poller = poller
      self.machine = machine
    }

    mutating func step(wake: EventDescriptor, take: () -> ([Stamped], Bool)) {
      guard let events = try? poller.wait() else {
        isOver = true
        return
      }
      for event in events {
        switch event.token {
        case Self.listenerToken: accept()
        case Self.wakeToken:
          wake.drain()
          let (announced, isEnding) = take()
          for item in announced { broadcast(item) }
          isOver = isEnding
        default: serve(event.token)
        }
      }
    }

    private mutating func accept() {
      while let socket = try? listener.accept() {
        guard clients.count < Self.maximumClients,
          (try? socket.descriptor.setNonBlocking(true)) != nil
        else { continue }
        let token = nextToken
        nextToken += 1
        var client = Client(socket: socket)
        client.output = client.session.greeting(of: machine)
        guard (try? poller.add(socket.descriptor, token: token)) != nil else { continue }
        clients[token] = client
        flush(token)
      }
    }

    private mutating func serve(_ token: UInt64) {
      guard let socket = clients[token]?.socket else { return }
      do {
        let message = try socket.receive(blocking: false)
        if message.isEnd { return drop(token) }
        let replies = clients[token]?.session.receive(message.bytes, machine: machine) ?? []
        clients[token]?.output += replies
      } catch  where error.kind == .wouldBlock {
        // Only room to write.
      } catch {
        return drop(token)
      }
      flush(token)
    }

    private mutating func broadcast(_ item: Stamped) {
      for token in clients.keys {
        guard let session = clients[token]?.session else { continue }
        clients[token]?.output += session.event(
          item.event, seconds: item.seconds, microseconds: item.microseconds)
        flush(token)
      }
    }

    private mutating func flush(_ token: UInt64) {
      guard var client = clients[token] else { return }
      do {
        try client.flush()
      } catch {
        return drop(token)
      }
      let interest: Poller.Interest = client.output.isEmpty ? .readable : [.readable, .writable]
      if interest != client.interest {
        client.interest = interest
        guard (try? poller.modify(client.socket.descriptor, interest, token: token)) != nil else {
          return drop(token)
        }
      }
      clients[token] = client
      if client.output.count > Client.outputLimit { drop(token) }
    }

    private mutating func drop(_ token: UInt64) {
      guard let client = clients.removeValue(forKey: token) else { return }
      poller.remove(client.socket.descriptor)
    }
  }

  private struct Client {
    static let outputLimit = 1 << 20

    let socket: UnixSocket
    var session = QMPSession()
    var output: [UInt8] = []
    var interest: Poller.Interest = .readable

    /// Sends what the socket takes now.
    mutating func flush() throws(SystemError) {
      while !output.isEmpty {
        do {
          output.removeFirst(try socket.send(output, blocking: false))
        } catch  where error.kind == .wouldBlock {
          return
        }
      }
    }
  }
}
