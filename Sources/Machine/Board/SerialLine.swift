import DeviceModel
import LinuxSystem

/// What the serial port is connected to on the host, and the thread that reads it.
final class SerialLine: CharacterBackend {
  // SAFETY (thread): the reader's thread uses the descriptors only, which are
  // thread-safe, and calls `onReceive` and `room` with the device lock held.
  var onReceive: (([UInt8]) -> Void)?
  var room: (() -> Int)?
  let input: FileDescriptor?
  let listener: UnixListener?
  let peer = Guarded<UnixSocket?>(nil)
  let ending: EventDescriptor
  /// Signalled when the device, which had none, has room again.
  let roomEvent: EventDescriptor
  private let output: ImpatientOutput?
  private let terminal: RawTerminal?
  private var thread: Thread?

  private init(
    input: FileDescriptor? = nil, output: FileDescriptor? = nil, terminal: RawTerminal? = nil,
    listener: UnixListener? = nil
  ) throws(SystemError) {
    self.input = input
    self.output = output.map { ImpatientOutput($0) }
    self.terminal = terminal
    self.listener = listener
    ending = try EventDescriptor()
    roomEvent = try EventDescriptor()
  }

  deinit {
    close()
  }

  /// Reads no more and gives a terminal back its mode. Idempotent. Not under the
  /// device lock.
  func close() {
    ending.signal()
    thread?.join()
    thread = nil
    terminal?.restore()
  }

  static func open(_ serial: MachineConfiguration.Serial) throws(MachineError) -> SerialLine? {
    do {
      switch serial {
      case .none: return nil
      case .standardStreams:
        let input = try FileDescriptor.standard(0)
        return try SerialLine(
          input: input, output: try FileDescriptor.standard(1),
          terminal: RawTerminal(input, keepsInterrupt: true))
      case .file(let path):
        let file = try openFile(path)
        let terminal = RawTerminal(file, keepsInterrupt: false)
        return try SerialLine(input: terminal == nil ? nil : file, output: file, terminal: terminal)
      case .socket(let path):
        return try SerialLine(listener: try UnixListener(at: path, kind: .stream))
      }
    } catch {
      throw MachineError(.host, "the serial port's other end could not be opened", cause: error)
    }
  }

  /// A file is written anew; a terminal or pipe that is there is used as it is, and
  /// opening it waits for nobody.
  private static func openFile(_ path: String) throws(SystemError) -> FileDescriptor {
    guard let file = try? FileDescriptor.open(path, [.writable, .nonBlocking, .noTerminal]) else {
      return try FileDescriptor.open(path, [.writeOnly, .create, .truncate])
    }
    if file.isRegularFile { try file.setSize(0) }
    return file
  }

  func write(_ bytes: [UInt8]) -> Int {
    if listener != nil {
      guard let socket = peer.withLock({ $0 }) else { return bytes.count }
      do {
        return try socket.send(bytes, blocking: false)
      } catch {
        return error.kind == .wouldBlock ? 0 : bytes.count
      }
    }
    // When the other end is gone, so are the bytes.
    return (try? output?.write(bytes)) ?? bytes.count
  }

  func hasRoom() {
    roomEvent.signal()
  }

  func start(lock: Lock) throws(SystemError) {
    guard input != nil || listener != nil else { return }
    let reader = Unsynchronized(try SerialReader(of: self, lock: lock))
    thread = try Thread(name: "serial") { reader.value.run() }
  }
}

/// Reads what is for the guest, as far as the device has room for it. Lives on the
/// serial thread.
private final class SerialReader {
  private enum Token {
    static let ending: UInt64 = 0
    static let room: UInt64 = 1
    static let listener: UInt64 = 2
    static let source: UInt64 = 3
  }

  private enum Source {
    case stream(FileDescriptor)
    case peer(UnixSocket)

    var descriptor: FileDescriptor {
      switch self {
      case .stream(let descriptor): descriptor
      case .peer(let socket): socket.descriptor
      }
    }
  }

  private static let most = 4096

  private weak var line: SerialLine?
  private let lock: Lock
  private let poller: Poller
  private var source: Source?
  private var deviceIsFull = false
  /// A regular file cannot be watched, and need not be.
  private var isAlwaysReadable = false

  init(of line: SerialLine, lock: Lock) throws(SystemError) {
    self.line = line
    self.lock = lock
    poller = try Poller()
    try poller.add(line.ending.descriptor, token: Token.ending)
    try poller.add(line.roomEvent.descriptor, token: Token.room)
    if let listener = line.listener { try poller.add(listener.descriptor, token: Token.listener) }
    source = line.input.map { .stream($0) }
    watch()
  }

  func run() {
    while true {
      let readsOn = isAlwaysReadable && source != nil && !deviceIsFull
      guard let events = try? poller.wait(milliseconds: readsOn ? 0 : -1),
        !events.contains(where: { $0.token == Token.ending }), let line
      else { return }
      for event in events {
        switch event.token {
        case Token.room:
          line.roomEvent.drain()
          deviceIsFull = false
          watch()
        case Token.listener: accept(line)
        default: read(line)
        }
      }
      if readsOn { read(line) }
    }
  }

  private func watch() {
    guard let source, !deviceIsFull else { return }
    isAlwaysReadable = (try? poller.add(source.descriptor, token: Token.source)) == nil
  }

  private func unwatch() {
    if let source { poller.remove(source.descriptor) }
  }

  /// The newer peer takes the line over.
  private func accept(_ line: SerialLine) {
    guard let socket = try? line.listener?.accept() else { return }
    unwatch()
    source = .peer(socket)
    line.peer.withLock { $0 = socket }
    watch()
  }

  private func read(_ line: SerialLine) {
    guard let source else { return }
    let room = lock.withLock { line.room?() ?? 0 }
    guard room > 0 else {
      unwatch()
      deviceIsFull = true
      return
    }
    do {
      let bytes =
        switch source {
        case .stream(let descriptor): try descriptor.read(upTo: min(room, Self.most))
        case .peer(let socket):
          try socket.receive(capacity: min(room, Self.most), blocking: false).bytes
        }
      guard !bytes.isEmpty else { return end(line) }
      lock.withLock { line.onReceive?(bytes) }
    } catch  where error.kind == .wouldBlock {
      // Somebody else was faster.
    } catch {
      end(line)
    }
  }

  private func end(_ line: SerialLine) {
    unwatch()
    source = nil
    line.peer.withLock { $0 = nil }
  }
}

/// A weak reference as a value.
struct Weak<Object: AnyObject> {
  weak var object: Object?

  init(_ object: Object) { self.object = object }
}
