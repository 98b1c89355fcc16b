import DeviceModel

/// The AC'97 audio controller of the Intel 82801AA (ICH), with one codec: stereo out, stereo
/// in, and a microphone, which have a source each.
///
/// Intel 82801AA datasheet, 12 (AC'97 audio controller registers).
package final class AC97: StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var function: PCIFunction.State
    var codec = AC97Codec()
    var globalControl: UInt32 = 0
    /// What is remembered of GLOB_STA; the rest follows from elsewhere.
    var globalStatus: UInt32 = 0
    /// Somebody is about to access the codec (CAS).
    var isCodecTaken = false
    /// PCM in, PCM out, microphone.
    package var boxes: [AC97BusMaster.State]
  }

  private enum Register {
    static let globalControl = 0x2C
    static let globalStatus = 0x30
    static let codecAccess = 0x34
    /// Each box has sixteen bytes from 0 on.
    static let boxes = 0x30
  }

  private enum GlobalControl {
    /// 0 holds the link and its codec in reset.
    static let noColdReset: UInt32 = 1 << 1
    static let warmReset: UInt32 = 1 << 2
    static let linkOff: UInt32 = 1 << 3
    static let writable: UInt32 = 0x3B
  }

  private enum GlobalStatus {
    /// PIINT, POINT, MINT, in the order of the boxes.
    static let boxes: UInt32 = 1 << 5
    static let codecReady: UInt32 = 1 << 8
    /// RCS: a read of a codec timed out.
    static let readTimedOut: UInt32 = 1 << 15
    /// AD3 and MD3, for drivers to remember by.
    static let writable: UInt32 = 3 << 16
  }

  private enum Box {
    static let input = 0
    static let output = 1
    static let microphone = 2
  }

  private static let receivedMasterAbort: UInt32 = 1 << 13

  package let function: PCIFunction
  private let clock: any DeviceClock
  private let sink: any AudioSink
  private let lineIn: any AudioSource
  private let microphone: any AudioSource
  private let boxes: [AC97BusMaster]
  private var timer: (any DeviceTimer)?
  private var state: State

  package init(
    memory: any GuestMemory, clock: any DeviceClock, sink: any AudioSink,
    lineIn: any AudioSource, microphone: any AudioSource, state: State?
  ) {
    self.clock = clock
    self.sink = sink
    self.lineIn = lineIn
    self.microphone = microphone
    function = PCIFunction(
      name: "AC'97",
      identity: PCIIdentity(
        vendor: 0x8086, device: 0x2415, revision: 1, classCode: 0x040100, interruptPin: 1))
    let directions: [(AC97BusMaster.Direction, channels: Int)] = [
      (.input, 2), (.output, 2), (.input, 1),
    ]
    boxes = directions.enumerated().map { index, box in
      AC97BusMaster(
        box.0, channels: box.channels, memory: memory, clock: clock,
        state: state?.boxes.dropFirst(index).first)
    }
    self.state =
      state ?? State(function: function.saveState(), boxes: boxes.map { $0.saveState() })
    function.describe { $0.set(PCIRegister.status, width: 2, value: 0x0280) }
    function.addBAR(0, size: 256, .io(mixerPorts))
    function.addBAR(1, size: 64, .io(busMasterPorts))
    function.restore(state?.function)
    connect()
    timer = clock.makeTimer { [weak self] in self?.catchUp() }
    settle()
  }

  private func connect() {
    for box in boxes {
      box.mayMaster = { [unowned self] in function.isBusMaster }
      box.onAbort = { [unowned self] in
        let status = function.configuration.read(PCIRegister.status, width: 2)
        function.setRegister(
          PCIRegister.status, width: 2, value: status | Self.receivedMasterAbort)
      }
    }
    boxes[Box.input].record = { [unowned self] in lineIn.record($0, rate: $1) }
    boxes[Box.input].onRest = { [unowned self] in lineIn.rest() }
    boxes[Box.microphone].record = { [unowned self] in microphone.record($0, rate: $1) }
    boxes[Box.microphone].onRest = { [unowned self] in microphone.rest() }
    boxes[Box.input].rate = { [unowned self] in state.codec.inputRate }
    boxes[Box.output].rate = { [unowned self] in state.codec.outputRate }
    boxes[Box.output].onPlay = { [unowned self] in sink.play(state.codec.lineOut($0), rate: $1) }
    boxes[Box.output].onRest = { [unowned self] in sink.rest() }
  }

  package func saveState() -> State {
    state.function = function.saveState()
    state.boxes = boxes.map { $0.saveState() }
    return state
  }

  package func reset() {
    for box in boxes { box.reset() }
    function.reset()
    state = State(function: function.saveState(), boxes: boxes.map { $0.saveState() })
    settle()
  }

  // MARK: Time

  private func catchUp() {
    for box in boxes { box.catchUp() }
    settle()
  }

  /// Interrupt and timer follow from everything else.
  private func settle() {
    function.setInterrupt(boxes.contains { $0.wantsInterrupt })
    if let deadline = boxes.compactMap(\.deadline).min() {
      timer?.arm(at: deadline)
    } else {
      timer?.cancel()
    }
  }

  // MARK: Native audio mixer registers (BAR 0)

  /// The codec's registers, from 0x80 on those of a second one, which is not there.
  package private(set) lazy var mixerPorts: any BusTarget = MixerPorts(self)

  private var isLinkUp: Bool {
    state.globalControl & GlobalControl.noColdReset != 0
      && state.globalControl & GlobalControl.linkOff == 0
  }

  private func readCodec(_ offset: Int) -> UInt16 {
    state.isCodecTaken = false
    guard isLinkUp, offset < 0x80 else {
      state.globalStatus |= GlobalStatus.readTimedOut
      return 0xFFFF
    }
    return state.codec.read(offset)
  }

  private func writeCodec(_ offset: Int, _ value: UInt16) {
    state.isCodecTaken = false
    guard isLinkUp, offset < 0x80 else { return }
    catchUp()
    let rates = (state.codec.inputRate, state.codec.outputRate)
    state.codec.write(offset, value)
    if state.codec.inputRate != rates.0 { boxes[Box.input].rateChanged() }
    if state.codec.outputRate != rates.1 { boxes[Box.output].rateChanged() }
    settle()
  }

  private final class MixerPorts: BusTarget {
    let maximumAccessWidth = 2
    private unowned let owner: AC97

    init(_ owner: AC97) { self.owner = owner }

    func read(offset: UInt64, width: Int) -> UInt64 {
      let word = owner.readCodec(Int(truncatingIfNeeded: offset & 0xFE))
      return UInt64(word >> (offset & 1 == 0 ? 0 : 8))
    }

    /// The link has no bytes: what is not a whole register does nothing.
    func write(offset: UInt64, width: Int, value: UInt64) {
      guard width == 2, offset & 1 == 0 else { return }
      owner.writeCodec(Int(truncatingIfNeeded: offset & 0xFE), UInt16(truncatingIfNeeded: value))
    }
  }

  // MARK: Native audio bus master registers (BAR 1)

  package private(set) lazy var busMasterPorts: any BusTarget = BusMasterPorts(self)

  private var globalStatus: UInt32 {
    boxes.enumerated().reduce(
      state.globalStatus | (isLinkUp ? GlobalStatus.codecReady : 0)
    ) { status, box in
      status | (box.element.wantsInterrupt ? GlobalStatus.boxes << UInt32(box.offset) : 0)
    }
  }

  private func readByte(_ offset: Int) -> UInt8 {
    func byte(_ word: UInt32) -> UInt8 { UInt8(truncatingIfNeeded: word >> UInt32(offset % 4 * 8)) }
    switch offset {
    case Register.globalControl..<Register.globalStatus: return byte(state.globalControl)
    case Register.globalStatus..<Register.codecAccess: return byte(globalStatus)
    case Register.codecAccess:
      defer { state.isCodecTaken = true }
      return state.isCodecTaken ? 1 : 0
    case 0..<Register.boxes: return boxes[offset / 16].read(offset % 16)
    default: return 0
    }
  }

  private func writeByte(_ offset: Int, _ value: UInt8) {
    let shift = UInt32(offset % 4 * 8)
    let (bits, mask) = (UInt32(value) << shift, UInt32(0xFF) << shift)
    switch offset {
    case Register.globalControl..<Register.globalStatus: setGlobalControl(bits, mask)
    case Register.globalStatus..<Register.codecAccess:
      state.globalStatus &= ~(bits & GlobalStatus.readTimedOut)
      let kept = mask & GlobalStatus.writable
      state.globalStatus = state.globalStatus & ~kept | bits & kept
    case 0..<Register.boxes: boxes[offset / 16].write(offset % 16, value)
    default: break
    }
  }

  /// A warm reset, which only wakes the link up, is over at once.
  private func setGlobalControl(_ bits: UInt32, _ mask: UInt32) {
    let before = state.globalControl
    state.globalControl = (before & ~mask | bits) & GlobalControl.writable
    let falls = before & ~state.globalControl & GlobalControl.noColdReset != 0
    guard falls else { return }
    state.codec = AC97Codec()
    for box in boxes { box.reset() }
  }

  private final class BusMasterPorts: BusTarget {
    let maximumAccessWidth = 4
    private unowned let owner: AC97

    init(_ owner: AC97) { self.owner = owner }

    func read(offset: UInt64, width: Int) -> UInt64 {
      owner.catchUp()
      return (0..<width).reduce(0) {
        $0 | UInt64(owner.readByte(Int(truncatingIfNeeded: offset) + $1)) << UInt64($1 * 8)
      }
    }

    func write(offset: UInt64, width: Int, value: UInt64) {
      owner.catchUp()
      for index in 0..<width {
        owner.writeByte(
          Int(truncatingIfNeeded: offset) + index,
          UInt8(truncatingIfNeeded: value >> UInt64(index * 8)))
      }
      owner.settle()
    }
  }
}
