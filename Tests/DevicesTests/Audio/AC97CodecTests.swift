import DeviceModel
import Devices
import Testing

@Suite struct AC97CodecTests {
  /// What 10,000 on the left and 20,000 on the right come out as.
  private func heard(_ change: (inout AC97Codec) -> Void) -> AudioFrame {
    var codec = AC97Codec()
    codec.write(0x02, 0)
    codec.write(0x18, 0x0808)
    change(&codec)
    return codec.lineOut([AudioFrame(left: 10_000, right: 20_000)])[0]
  }

  @Test("0 dB changes nothing, and nothing is heard at power-on")
  func neutral() {
    #expect(heard { _ in } == AudioFrame(left: 10_000, right: 20_000))
    #expect(heard { $0 = AC97Codec() } == .silence)
  }

  // 10^(-1.5 n / 20), and for PCM out 10^((12 - 1.5 n) / 20), by another program.
  @Test(
    "each step is a decibel and a half",
    arguments: [
      (register: 0x02, value: UInt16(0x0001), left: Int16(10_000), right: Int16(16_828)),
      (0x02, 0x0400, 5012, 20_000), (0x02, 0x1F00, 47, 20_000), (0x02, 0x001F, 10_000, 95),
      (0x18, 0x0808, 10_000, 20_000), (0x18, 0x0400, 19_953, 32_767),
      (0x18, 0x0000, 32_767, 32_767), (0x18, 0x1F1F, 188, 377),
    ])
  func steps(register: Int, value: UInt16, left: Int16, right: Int16) {
    let heard = heard { $0.write(register, value) }
    #expect(heard == AudioFrame(left: left, right: right))
  }

  @Test(
    "a mute, or a part without power, is silence",
    arguments: [(0x02, UInt16(0x8000)), (0x18, 0x8808), (0x26, 0x0200), (0x26, 0x0400)])
  func mute(register: Int, value: UInt16) {
    #expect(heard { $0.write(register, value) } == .silence)
  }

  @Test("registers keep what they have bits for")
  func masks() {
    var codec = AC97Codec()
    for (register, kept): (Int, UInt16) in [
      (0x02, 0x9F1F), (0x04, 0), (0x06, 0x801F), (0x0A, 0x801E), (0x0E, 0x805F), (0x10, 0x9F1F),
      (0x18, 0x9F1F), (0x1A, 0x0707), (0x1C, 0x8F0F), (0x20, 0x8380), (0x22, 0), (0x28, 1),
      (0x7C, 0x8384), (0x7E, 0x7600), (0x5A, 0),
    ] {
      codec.write(register, 0xFFFF)
      #expect(codec.read(register) == kept, "register \(register)")
    }
    codec.write(0x02, 0x2020)
    #expect(codec.read(0x02) == 0x1F1F, "of six bits there are five")
    codec.write(0x00, 0x1234)
    #expect(codec.read(0x00) == 0 && codec.read(0x02) == 0x8000 && codec.read(0x18) == 0x8808)
  }

  @Test("powered down sections are not ready")
  func power() {
    var codec = AC97Codec()
    #expect(codec.read(0x26) == 0x000F)
    codec.write(0x26, 0x0300)
    #expect(codec.read(0x26) == 0x030C)
    codec.write(0x26, 0x0800)
    #expect(codec.read(0x26) == 0x0803)
  }

  @Test("rates vary once that is switched on, within limits")
  func rates() {
    var codec = AC97Codec()
    codec.write(0x2C, 44100)
    #expect(codec.read(0x2C) == 48000 && codec.outputRate == 48000)
    codec.write(0x2A, 0xFFFF)
    #expect(codec.read(0x2A) == 1)
    for (asked, had): (UInt16, UInt16) in [
      (44100, 44100), (8000, 8000), (11025, 11025), (4000, 8000), (0xFFFF, 48000), (22050, 22050),
    ] {
      codec.write(0x2C, asked)
      codec.write(0x32, asked)
      #expect(codec.read(0x2C) == had && codec.outputRate == Int(had))
      #expect(codec.read(0x32) == had && codec.inputRate == Int(had))
    }
    codec.write(0x2A, 0)
    #expect(codec.outputRate == 48000 && codec.inputRate == 48000)
  }
}
