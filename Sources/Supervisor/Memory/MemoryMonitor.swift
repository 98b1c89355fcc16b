import Brokering
import LinuxSystem
import Logging

/// Watches the host's memory on a thread of its own: it looks every second, and at once when
/// the kernel tells that programs waited for memory (PSI, Documentation/accounting/psi.rst).
public final class MemoryMonitor: HostMemory {
  public let readings: AsyncStream<MemoryReading>

  /// A fifth of a second in two. Windows of two seconds are what anybody may ask for.
  private static let trigger = "some 200000 2000000\0"
  private static let intervalMilliseconds: Int32 = 1000
  /// EPOLLPRI: what a trigger is told by.
  private static let urgent = Poller.Interest(rawValue: 0x002)
  private static let wakeToken: UInt64 = 0
  private static let pressureToken: UInt64 = 1

  private let wake: EventDescriptor
  private let isStopped = Guarded(false)

  public init(logger: Logger) throws(SystemError) {
    let (readings, continuation) = AsyncStream.makeStream(
      of: MemoryReading.self, bufferingPolicy: .bufferingNewest(1))
    self.readings = readings
    wake = try EventDescriptor()
    let poller = try Poller()
    try poller.add(wake.descriptor, token: Self.wakeToken)
    let files = MemoryFiles()
    let pressure = Self.openTrigger(files, poller)
    if pressure == nil {
      logger.info("the kernel does not tell of memory pressure: memory is looked at each second")
    }
    continuation.onTermination = { [wake, isStopped] _ in
      isStopped.withLock { $0 = true }
      wake.signal()
    }
    _ = try Thread(name: "memory") { [isStopped] in
      Self.run(poller, files, pressure, isStopped, continuation)
    }
  }

  deinit {
    isStopped.withLock { $0 = true }
    wake.signal()
  }

  private static func openTrigger(_ files: MemoryFiles, _ poller: Poller) -> FileDescriptor? {
    for path in files.pressureFiles {
      guard let file = try? FileDescriptor.open(path, .writable),
        (try? file.writeAll(Array(trigger.utf8))) != nil,
        (try? poller.add(file, urgent, token: pressureToken)) != nil
      else { continue }
      return file
    }
    return nil
  }

  private static func run(
    _ poller: Poller, _ files: MemoryFiles, _ pressure: FileDescriptor?,
    _ isStopped: Guarded<Bool>, _ continuation: AsyncStream<MemoryReading>.Continuation
  ) {
    defer { continuation.finish() }
    var isStalling = false
    while !isStopped.withLock({ $0 }) {
      // What cannot be read now, for lack of descriptors, can be later.
      if let reading = files.read(isStalling: isStalling) { continuation.yield(reading) }
      guard let events = try? poller.wait(milliseconds: intervalMilliseconds) else { return }
      isStalling = false
      for event in events where event.token == pressureToken {
        if event.interest.contains(.failed) {
          // Its control group is gone.
          if let pressure { poller.remove(pressure) }
        } else {
          isStalling = true
        }
      }
    }
  }
}
