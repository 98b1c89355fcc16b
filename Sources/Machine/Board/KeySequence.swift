import DeviceModel

/// Keys that are pressed and released on somebody's behalf, each in its time. Part of
/// the machine's state: a key that is down in a saved machine goes up in the restored.
final class KeySequence: StatefulDevice {
  struct Stroke: Codable, Sendable {
    var time: UInt64
    var key: KeyCode
    var isPressed: Bool
  }

  struct State: Codable, Sendable {
    var version = 1
    /// In the order of their times.
    var strokes: [Stroke] = []
    /// When the last of them is over, and the next may begin.
    var busyUntil: UInt64 = 0
  }

  private let clock: any DeviceClock
  private let deliver: (KeyCode, Bool) -> Void
  private var state: State
  private var timer: (any DeviceTimer)?

  /// - Parameter deliver: takes a key and whether it is pressed.
  init(
    clock: any DeviceClock, deliver: @escaping (KeyCode, Bool) -> Void, state: State?
  ) {
    self.clock = clock
    self.deliver = deliver
    self.state = state ?? State()
    timer = clock.makeTimer { [unowned self] in strike() }
    arm()
  }

  func saveState() -> State { state }

  /// Whoever presses keys holds them on while the machine is reset.
  func reset() {}

  /// Presses keys together and releases them, last first, after `hold`
  /// nanoseconds; those asked for meanwhile wait their turn.
  func press(_ keys: [KeyCode], hold: UInt64) {
    let start = max(clock.now, state.busyUntil)
    let end = start &+ hold
    state.strokes += keys.map { Stroke(time: start, key: $0, isPressed: true) }
    state.strokes += keys.reversed().map { Stroke(time: end, key: $0, isPressed: false) }
    state.busyUntil = end
    arm()
  }

  private func arm() {
    if let next = state.strokes.first { timer?.arm(at: next.time) }
  }

  private func strike() {
    let due = state.strokes.prefix { $0.time <= clock.now }
    state.strokes.removeFirst(due.count)
    for stroke in due { deliver(stroke.key, stroke.isPressed) }
    arm()
  }
}
