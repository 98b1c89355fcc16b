import DeviceModel
import Devices

/// Time that stands still until a test moves it.
final class FakeClock: DeviceClock {
  private final class Timer: DeviceTimer {
    var deadline: UInt64?
    let fire: () -> Void

    init(_ fire: @escaping () -> Void) { self.fire = fire }

    func arm(at deadline: UInt64) { self.deadline = deadline }
    func cancel() { deadline = nil }
  }

  private(set) var now: UInt64
  /// UTC in nanoseconds since 1970 when `now` was 0.
  let wallClockStart: Int64
  private var timers: [Timer] = []

  init(now: UInt64 = 1_000_000_000, wallClockStart: Int64 = 0) {
    self.now = now
    self.wallClockStart = wallClockStart
  }

  var wallClock: (seconds: Int64, nanoseconds: UInt32) {
    let total = wallClockStart + Int64(now)
    return (total / 1_000_000_000, UInt32(total % 1_000_000_000))
  }

  /// The earliest deadline that is armed.
  var nextDeadline: UInt64? { timers.compactMap(\.deadline).min() }

  func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer {
    let timer = Timer(fire)
    timers.append(timer)
    return timer
  }

  /// Lets time pass, firing what falls due in its order.
  func advance(milliseconds: Int) { advance(UInt64(milliseconds) * 1_000_000) }

  /// The same in nanoseconds.
  func advance(_ nanoseconds: UInt64) {
    let end = now + nanoseconds
    while let next = timers.filter({ $0.deadline != nil }).min(by: {
      ($0.deadline ?? 0) < ($1.deadline ?? 0)
    }), let deadline = next.deadline, deadline <= end {
      now = max(now, deadline)
      next.deadline = nil
      next.fire()
    }
    now = end
  }
}

/// Notes the level of an interrupt line, and how often it rose.
final class FakeLine: InterruptLine {
  private(set) var level = false
  private(set) var edges = 0

  func setLevel(_ asserted: Bool) {
    if asserted && !level { edges += 1 }
    level = asserted
  }
}

/// Notes what devices asked of the machine.
final class FakeMachine: MachineControl {
  private(set) var resets: [ResetCause] = []
  private(set) var powerOffs = 0
  private(set) var refusedSleeps: [UInt16] = []

  func requestReset(_ cause: ResetCause) { resets.append(cause) }
  func requestPowerOff() { powerOffs += 1 }
  func reportRefusedSleep(type: UInt16) { refusedSleeps.append(type) }
}

/// Guest RAM from address 0.
final class FakeMemory: GuestMemory {
  var bytes: [UInt8]
  /// Called before each write, which goes on, with its address.
  var onWrite: ((UInt64) -> Void)?

  init(size: Int) { bytes = Array(repeating: 0, count: size) }

  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(GuestMemoryError)
  {
    let range = try range(address, buffer.count)
    buffer.copyBytes(from: bytes[range])
  }

  func write(at address: UInt64, from buffer: UnsafeRawBufferPointer) throws(GuestMemoryError) {
    let range = try range(address, buffer.count)
    onWrite?(address)
    bytes.replaceSubrange(range, with: buffer)
  }

  private func range(_ address: UInt64, _ count: Int) throws(GuestMemoryError) -> Range<Int> {
    guard address <= UInt64(bytes.count), UInt64(count) <= UInt64(bytes.count) - address else {
      throw GuestMemoryError(address: address, count: count)
    }
    return Int(address)..<Int(address) + count
  }
}

/// The far end of a serial line, which can refuse bytes.
final class FakeBackend: CharacterBackend {
  var sent: [UInt8] = []
  /// How many more bytes it takes.
  var capacity = Int.max
  var onReceive: (([UInt8]) -> Void)?
  var room: (() -> Int)?
  var timesToldOfRoom = 0

  func hasRoom() { timesToldOfRoom += 1 }

  func write(_ bytes: [UInt8]) -> Int {
    let count = min(capacity, bytes.count)
    sent += bytes.prefix(count)
    if capacity != .max { capacity -= count }
    return count
  }
}
