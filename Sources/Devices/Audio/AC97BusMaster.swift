import DeviceModel

/// One bus master of the AC'97 controller ("box"): its registers, and the engine that moves
/// samples along the guest's list of buffers as time passes.
///
/// Intel 82801AA datasheet, 12.2, and "AC '97 Programmer's Reference Manual", 3.2.
package final class AC97BusMaster {
  package struct State: Codable, Sendable {
    package var version = 1
    /// BDBAR, CIV, LVI, SR, PICB, PIV, CR.
    var descriptorBase: UInt32 = 0
    var current: UInt8 = 0
    var lastValid: UInt8 = 0
    var status: UInt16 = Status.halted
    var remaining: UInt16 = 0
    var prefetched: UInt8 = 0
    var control: UInt8 = 0
    /// The buffer that CIV names, once it was fetched.
    var buffer: Buffer?
    /// Runs while samples do.
    var clock: SampleClock?
    /// The left sample of a frame whose right one is in the next buffer.
    var half: Int16?
    /// What the link goes on sending after the last valid buffer.
    var held = AudioFrame.silence
  }

  /// A buffer descriptor, its address moved on to what comes next.
  struct Buffer: Codable, Sendable, Equatable {
    var address: UInt64
    var interruptsOnCompletion: Bool
    /// Buffer underrun policy: zeros follow when it was the last, not its last sample.
    var endsInSilence: Bool
  }

  enum Direction { case output, input }

  private enum Register {
    static let descriptorBase = 0x0
    static let current = 0x4
    static let lastValid = 0x5
    static let status = 0x6
    static let remaining = 0x8
    static let prefetched = 0xA
    static let control = 0xB
  }

  enum Status {
    /// DCH, CELV, LVBCI, BCIS, FIFOE.
    static let halted: UInt16 = 1 << 0
    static let isLastValid: UInt16 = 1 << 1
    static let lastValidDone: UInt16 = 1 << 2
    static let bufferDone: UInt16 = 1 << 3
    static let fifoError: UInt16 = 1 << 4
    static let clearable = lastValidDone | bufferDone | fifoError
  }

  private enum Control {
    static let run: UInt8 = 1 << 0
    static let reset: UInt8 = 1 << 1
    static let lastValidInterrupt: UInt8 = 1 << 2
    static let fifoErrorInterrupt: UInt8 = 1 << 3
    static let completionInterrupt: UInt8 = 1 << 4
    static let interrupts = lastValidInterrupt | fifoErrorInterrupt | completionInterrupt
  }

  private static let indexMask: UInt8 = 31

  private let direction: Direction
  /// Samples to a frame.
  private let channels: Int
  private let memory: any GuestMemory
  private let clock: any DeviceClock
  private var state: State
  /// Whether the function's bus master bit is set, and the codec's rate.
  var mayMaster: () -> Bool = { false }
  var rate: () -> Int = { 48000 }
  /// Sound that was played, and where what is recorded comes from.
  var onPlay: ([AudioFrame], Int) -> Void = { _, _ in }
  var onRest: () -> Void = {}
  var record: (Int, Int) -> [AudioFrame] = { count, _ in Array(repeating: .silence, count: count) }
  /// Memory was not where a descriptor, or the list's base, said.
  var onAbort: () -> Void = {}

  init(
    _ direction: Direction, channels: Int, memory: any GuestMemory, clock: any DeviceClock,
    state: State?
  ) {
    self.direction = direction
    self.channels = channels
    self.memory = memory
    self.clock = clock
    self.state = state ?? State()
  }

  func saveState() -> State { state }

  func reset() {
    state = State()
    onRest()
  }

  /// Whether something that the driver wants to be told of has happened.
  var wantsInterrupt: Bool {
    let (status, control) = (state.status, state.control)
    return status & Status.lastValidDone != 0 && control & Control.lastValidInterrupt != 0
      || status & Status.bufferDone != 0 && control & Control.completionInterrupt != 0
      || status & Status.fifoError != 0 && control & Control.fifoErrorInterrupt != 0
  }

  // MARK: Registers

  func read(_ offset: Int) -> UInt8 {
    switch offset {
    case Register.descriptorBase..<4:
      UInt8(truncatingIfNeeded: state.descriptorBase >> UInt32(offset * 8))
    case Register.current: state.current
    case Register.lastValid: state.lastValid
    case Register.status: UInt8(truncatingIfNeeded: state.status)
    case Register.remaining: UInt8(truncatingIfNeeded: state.remaining)
    case Register.remaining + 1: UInt8(truncatingIfNeeded: state.remaining >> 8)
    case Register.prefetched: state.prefetched
    case Register.control: state.control
    default: 0
    }
  }

  func write(_ offset: Int, _ value: UInt8) {
    switch offset {
    case Register.descriptorBase..<4:
      let shift = UInt32(offset * 8)
      state.descriptorBase = state.descriptorBase & ~(0xFF << shift) | UInt32(value) << shift
      state.descriptorBase &= ~7
    case Register.lastValid: setLastValid(value & Self.indexMask)
    case Register.status: state.status &= ~(UInt16(value) & Status.clearable)
    case Register.control: setControl(value)
    default: break
    }
  }

  private func setLastValid(_ index: UInt8) {
    state.lastValid = index
    guard state.status & Status.isLastValid != 0 else { return }
    // There is more after what had been the last.
    state.status &= ~Status.isLastValid
    state.current = state.prefetched
    if state.control & Control.run != 0 { start() }
  }

  private func setControl(_ value: UInt8) {
    guard value & Control.reset == 0 else {
      reset()
      state.control = value & Control.interrupts
      return
    }
    let ran = state.control & Control.run != 0
    state.control = value & (Control.run | Control.interrupts)
    let runs = value & Control.run != 0
    if runs && !ran && state.status & Status.isLastValid == 0 { start() }
    if ran && !runs { stop() }
  }

  private func start() {
    state.status &= ~Status.halted
    state.clock = SampleClock(rate: rate(), at: clock.now)
    advance(0)
  }

  /// Halts where it is, to go on there.
  private func stop() {
    state.status |= Status.halted
    state.clock = nil
    onRest()
  }

  // MARK: Time

  private var isMoving: Bool { state.status & Status.halted == 0 }

  /// The link repeats the last sample, for want of buffers.
  private var isHolding: Bool {
    !isMoving && state.clock != nil && state.held != .silence
  }

  /// Moves the samples of the time that has passed.
  func catchUp() {
    guard let samples = state.clock?.count(until: clock.now) else { return }
    if isMoving { advance(samples * channels) } else { hold(samples) }
  }

  /// The codec's rate is about to change: what has passed was at the old one.
  func rateChanged() {
    guard state.clock != nil else { return }
    state.clock = SampleClock(rate: rate(), at: clock.now)
  }

  /// When to catch up at the latest; `nil` while nothing moves.
  var deadline: UInt64? {
    let now = clock.now
    guard let samples = state.clock else { return nil }
    if isMoving {
      let frames = (Int(state.remaining) + channels - 1) / channels
      return AudioPace.next(samples.time(after: frames), after: now)
    }
    return isHolding ? now &+ AudioPace.longest : nil
  }

  // MARK: Engine

  /// Moves samples, and goes from buffer to buffer. Between two buffers with samples there
  /// are no more without any than the list has entries.
  private func advance(_ samples: Int) {
    var due = samples
    while isMoving {
      guard state.buffer != nil || fetch() else { return }
      let count = min(due, Int(state.remaining))
      guard move(count) else { return abort() }
      due -= count
      state.remaining -= UInt16(count)
      guard state.remaining == 0 else { return }
      finishBuffer()
    }
    hold(due / channels)
  }

  private func fetch() -> Bool {
    let place = UInt64(state.descriptorBase) + UInt64(state.current) * 8
    guard mayMaster(), let low = memory.number(at: place, UInt32.self),
      let high = memory.number(at: place + 4, UInt32.self)
    else {
      abort()
      return false
    }
    state.buffer = Buffer(
      address: UInt64(low & ~1), interruptsOnCompletion: high & 1 << 31 != 0,
      endsInSilence: high & 1 << 30 != 0)
    state.remaining = UInt16(truncatingIfNeeded: high)
    state.prefetched = (state.current + 1) & Self.indexMask
    return true
  }

  private func finishBuffer() {
    let buffer = state.buffer
    state.buffer = nil
    if buffer?.interruptsOnCompletion == true { state.status |= Status.bufferDone }
    guard state.current == state.lastValid else {
      state.current = state.prefetched
      return
    }
    state.status |= Status.lastValidDone | Status.isLastValid | Status.halted
    if buffer?.endsInSilence == true { state.held = .silence }
    state.half = nil
  }

  /// The bus ends in a master abort: the box stops, and the driver is told of a FIFO error.
  private func abort() {
    state.status |= Status.fifoError
    state.buffer = nil
    state.remaining = 0
    stop()
    onAbort()
  }

  /// `false` when that is not RAM.
  private func move(_ count: Int) -> Bool {
    guard count > 0, let buffer = state.buffer else { return true }
    guard mayMaster() else { return false }
    state.buffer?.address = buffer.address + UInt64(count) * 2
    switch direction {
    case .output:
      guard let bytes = memory.bytes(at: buffer.address, count: count * 2) else { return false }
      play(bytes)
      return true
    case .input: return memory.put(recorded(count)[...], at: buffer.address)
    }
  }

  private func play(_ bytes: [UInt8]) {
    var frames: [AudioFrame] = []
    frames.reserveCapacity(bytes.count / 4 + 1)
    for at in stride(from: 0, to: bytes.count, by: 2) {
      let sample = Int16(bitPattern: UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8)
      if let left = state.half {
        frames.append(AudioFrame(left: left, right: sample))
        state.half = nil
      } else {
        state.half = sample
      }
    }
    if let last = frames.last { state.held = last }
    if !frames.isEmpty { onPlay(frames, state.clock?.rate ?? rate()) }
  }

  private func recorded(_ count: Int) -> [UInt8] {
    let rate = state.clock?.rate ?? rate()
    var samples: [Int16] = []
    if let half = state.half { samples.append(half) }
    state.half = nil
    let frames = record((count - samples.count + channels - 1) / channels, rate)
    for frame in frames {
      samples.append(frame.left)
      if channels == 2 { samples.append(frame.right) }
    }
    if samples.count > count { state.half = samples.removeLast() }
    return samples.flatMap { LittleEndian.bytes($0) }
  }

  private func hold(_ frames: Int) {
    guard direction == .output, isHolding else {
      if !isMoving { onRest() }
      return
    }
    guard frames > 0 else { return }
    onPlay(Array(repeating: state.held, count: frames), state.clock?.rate ?? rate())
  }
}
