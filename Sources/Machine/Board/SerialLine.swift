import DeviceModel
import LinuxSystem

/// What the serial port is connected to on the host, and the thread that reads it.
final class SerialLine: CharacterBackend {
  // SAFETY (thread): `run` touches the descriptors only, which are thread-safe,
  // and calls `onReceive` with the device lock held.
  var onReceive: (([UInt8]) -> Void)?
  private let input: FileDescriptor?
  private let output: FileDescriptor?
  private let listener: UnixListener?
  private let peer = Guarded<UnixSocket?>(nil)
  private let ending: EventDescriptor
  private var thread: Thread?

  private init(input: FileDescriptor?, output: FileDescriptor?, listener: UnixListener?)
    throws(SystemError)
  {
    self.input = input
    self.output = output
    self.listener = listener
    ending = try EventDescriptor()
  }

  deinit {
    ending.signal()
    thread?.join()
  }

  static func open(_ serial: MachineConfiguration.Serial) throws(MachineError) -> SerialLine? {
    do {
      switch serial {
      case .none: return nil
      case .standardStreams:
        return try SerialLine(
          input: try FileDescriptor.standard(0), output: try FileDescriptor.standard(1),
          listener: nil)
      case .file(let path):
        let isDevice = path.hasPrefix("/dev/")
        let file = try FileDescriptor.open(
          path, isDevice ? [.writable, .noTerminal] : [.writeOnly, .create, .truncate])
        return try SerialLine(input: isDevice ? file : nil, output: file, listener: nil)
      case .socket(let path):
        let listener = try UnixListener(at: path, kind: .stream)
        return try SerialLine(input: nil, output: nil, listener: listener)
      }
    } catch {
      throw MachineError(.host, "the serial port's other end could not be opened", cause: error)
    }
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
    // A file or terminal takes what it gets; when it is gone, so are the bytes.
    return (try? output?.write(bytes)) ?? bytes.count
  }

  func start(lock: Lock) throws(SystemError) {
    guard input != nil || listener != nil else { return }
    let line = Unsynchronized(Weak(self))
    let poller = try Poller()
    try poller.add(ending.descriptor, token: 0)
    if let input, (try? poller.add(input, token: 1)) == nil { return }
    if let listener { try poller.add(listener.descriptor, token: 2) }
    thread = try Thread(name: "serial") {
      while let events = try? poller.wait() {
        for event in events where event.token == 0 { return }
        guard let line = line.value.object else { return }
        for event in events { line.handle(event, poller, lock) }
      }
    }
  }

  private func handle(_ event: Poller.Event, _ poller: Poller, _ lock: Lock) {
    switch event.token {
    case 1:
      guard let input, let bytes = try? input.read(upTo: 4096), !bytes.isEmpty else {
        if let input { poller.remove(input) }
        return
      }
      lock.withLock { onReceive?(bytes) }
    case 2:
      guard let socket = try? listener?.accept() else { return }
      if let old = peer.withLock({ $0 }) { poller.remove(old.descriptor) }
      peer.withLock { $0 = socket }
      try? poller.add(socket.descriptor, token: 3)
    default:
      guard let socket = peer.withLock({ $0 }) else { return }
      guard let message = try? socket.receive(), !message.isEnd else {
        poller.remove(socket.descriptor)
        peer.withLock { $0 = nil }
        return
      }
      lock.withLock { onReceive?(message.bytes) }
    }
  }
}

/// A weak reference as a value.
struct Weak<Object: AnyObject> {
  weak var object: Object?

  init(_ object: Object) { self.object = object }
}
