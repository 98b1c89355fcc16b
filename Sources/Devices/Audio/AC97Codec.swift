import DeviceModel

/// An AC'97 codec (Audio Codec '97, revision 2.1) with variable rates, which says that it is
/// a SigmaTel STAC9700. Its analog inputs have nothing connected; of its outputs, line out
/// is listened to.
package struct AC97Codec: Codable, Sendable {
  private enum Register {
    static let reset = 0x00
    static let masterVolume = 0x02
    static let masterMono = 0x06
    static let pcBeep = 0x0A
    static let phone = 0x0C
    static let microphone = 0x0E
    static let lineIn = 0x10
    static let cd = 0x12
    static let video = 0x14
    static let auxiliary = 0x16
    static let pcmOut = 0x18
    static let recordSelect = 0x1A
    static let recordGain = 0x1C
    static let generalPurpose = 0x20
    static let powerdown = 0x26
    static let extendedID = 0x28
    static let extendedControl = 0x2A
    static let frontDACRate = 0x2C
    static let leftRightADCRate = 0x32
    static let vendorID1 = 0x7C
    static let vendorID2 = 0x7E
  }

  /// Bits 15 of the volume registers.
  private static let mute: UInt16 = 1 << 15
  /// Variable rate audio, in the extended audio ID and control registers.
  private static let variableRate: UInt16 = 1 << 0
  private static let vendor: (UInt16, UInt16) = (0x8384, 0x7600)
  private static let fixedRate: UInt16 = 48000
  private static let rates: ClosedRange<UInt16> = 8000...48000

  /// Powerdown control and status (section 5.7.6).
  private enum Power {
    static let adcOff: UInt16 = 1 << 8
    static let dacOff: UInt16 = 1 << 9
    static let mixerOff: UInt16 = 1 << 10
    static let referenceOff: UInt16 = 1 << 11
    static let controls: UInt16 = 0xFF00
  }

  /// Which bits can be written (section 5.7), beside those with rules of their own.
  private static let writable: [Int: UInt16] = [
    Register.masterVolume: 0x9F1F, Register.masterMono: 0x801F, Register.pcBeep: 0x801E,
    Register.phone: 0x801F, Register.microphone: 0x805F, Register.lineIn: 0x9F1F,
    Register.cd: 0x9F1F, Register.video: 0x9F1F, Register.auxiliary: 0x9F1F,
    Register.pcmOut: 0x9F1F, Register.recordSelect: 0x0707, Register.recordGain: 0x8F0F,
    Register.generalPurpose: 0x8380, Register.powerdown: Power.controls,
    Register.extendedControl: variableRate,
  ]

  private static let defaults: [Int: UInt16] = [
    Register.masterVolume: 0x8000, Register.masterMono: 0x8000, Register.phone: 0x8008,
    Register.microphone: 0x8008, Register.lineIn: 0x8808, Register.cd: 0x8808,
    Register.video: 0x8808, Register.auxiliary: 0x8808, Register.pcmOut: 0x8808,
    Register.recordGain: 0x8000, Register.frontDACRate: fixedRate,
    Register.leftRightADCRate: fixedRate, Register.extendedID: variableRate,
    Register.vendorID1: vendor.0, Register.vendorID2: vendor.1,
  ]

  private var registers: [Int: UInt16] = AC97Codec.defaults

  package init() {}

  /// A register by its even offset, 0 … 0x7E; 0 where there is none.
  package func read(_ offset: Int) -> UInt16 {
    let value = registers[offset] ?? 0
    return offset == Register.powerdown ? value | ready(value) : value
  }

  package mutating func write(_ offset: Int, _ value: UInt16) {
    switch offset {
    case Register.reset: registers = Self.defaults
    case Register.frontDACRate, Register.leftRightADCRate:
      // The nearest that there is (section 5.8.3).
      guard hasVariableRate else { return }
      registers[offset] = min(max(value, Self.rates.lowerBound), Self.rates.upperBound)
    case Register.extendedControl:
      registers[offset] = value & Self.variableRate
      guard !hasVariableRate else { return }
      registers[Register.frontDACRate] = Self.fixedRate
      registers[Register.leftRightADCRate] = Self.fixedRate
    case Register.masterVolume, Register.masterMono:
      // Of six bits there are five; the sixth sets all of them (section 5.7.2.1).
      var value = value
      if value & 0x0020 != 0 { value |= 0x001F }
      if value & 0x2000 != 0 { value |= 0x1F00 }
      store(offset, value)
    default: store(offset, value)
    }
  }

  private mutating func store(_ offset: Int, _ value: UInt16) {
    guard let mask = Self.writable[offset] else { return }
    registers[offset] = value & mask
  }

  private var hasVariableRate: Bool {
    (registers[Register.extendedControl] ?? 0) & Self.variableRate != 0
  }

  /// Which sections are ready, by what was switched off: ADC, DAC, mixer, reference.
  private func ready(_ control: UInt16) -> UInt16 {
    let reference = control & Power.referenceOff == 0
    let mixer = reference && control & Power.mixerOff == 0
    return (control & Power.adcOff == 0 ? 1 : 0) | (control & Power.dacOff == 0 ? 2 : 0)
      | (mixer ? 4 : 0) | (reference ? 8 : 0)
  }

  // MARK: Sound

  /// Frames a second that the DAC plays and the ADC records.
  package var outputRate: Int { Int(registers[Register.frontDACRate] ?? Self.fixedRate) }
  package var inputRate: Int { Int(registers[Register.leftRightADCRate] ?? Self.fixedRate) }

  /// What line out makes of what the DAC is sent.
  package func lineOut(_ frames: [AudioFrame]) -> [AudioFrame] {
    let gain = (left: self.gain(shift: 8), right: self.gain(shift: 0))
    guard gain.left != Self.unity || gain.right != Self.unity else { return frames }
    return frames.map {
      AudioFrame(
        left: Self.amplify($0.left, gain.left), right: Self.amplify($0.right, gain.right))
    }
  }

  /// Gains have 16 bits behind the point.
  private static let unity: Int64 = 1 << 16
  /// The factor of each step of volume, which is 1.5 dB, from
  /// +12 dB down (10 to the power of -1.5/20 is 0.8413951416…).
  private static let factors: [Double] = {
    var factor = 3.981_071_705_534_972_5
    return (0...62).map { step in
      defer { factor *= 0.841_395_141_645_195_1 }
      // What is neither raised nor lowered passes unchanged.
      return step == 8 ? 1 : factor
    }
  }()

  private func gain(shift: UInt16) -> Int64 {
    let master = registers[Register.masterVolume] ?? Self.mute
    let pcm = registers[Register.pcmOut] ?? Self.mute
    let isOn =
      (master | pcm) & Self.mute == 0 && read(Register.powerdown) & 0x0E == 0x0E
    guard isOn else { return 0 }
    // Master: 0 is 0 dB. PCM out: 8 is 0 dB (section 5.7.2). Both go down by 1.5 dB.
    let steps = Int(master >> shift & 0x1F) + Int(pcm >> shift & 0x1F)
    return Int64((Self.factors[steps] * Double(Self.unity)).rounded())
  }

  private static func amplify(_ sample: Int16, _ gain: Int64) -> Int16 {
    Int16(clamping: (Int64(sample) * gain + unity / 2) >> 16)
  }
}
