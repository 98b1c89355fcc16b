import DeviceModel
import Devices
import Testing

@Suite("restored chipset devices")
struct ChipsetTwinTests {
  @Test("a restored real-time clock is not told from the original", arguments: 0..<40)
  func realTimeClock(seed: Int) {
    expectRestoredTwin(seed: seed, offsets: 0..<2, longestPause: 40_000_000_000) {
      RealTimeClock(interrupt: $0.line, clock: $0.clock, nvram: [:], state: $1)
    }
  }

  @Test("a restored power management block is not told from the original", arguments: 0..<20)
  func powerManagement(seed: Int) {
    expectRestoredTwin(
      seed: seed, offsets: 0..<16, widths: [1, 2, 4], longestPause: 3_000_000_000
    ) {
      PowerManagement(interrupt: $0.line, clock: $0.clock, machine: $0.machine, state: $1)
    }
  }

  @Test("restored reset and A20 registers are not told from the originals", arguments: 0..<5)
  func systemControl(seed: Int) {
    expectRestoredTwin(seed: seed, offsets: 0..<1, longestPause: 1000) {
      ResetControl(machine: $0.machine, state: $1)
    }
    expectRestoredTwin(seed: seed, offsets: 0..<1, longestPause: 1000) {
      SystemControlPortA(machine: $0.machine, state: $1)
    }
  }

  @Test("a restored configuration device is not told from the original", arguments: 0..<10)
  func firmwareConfiguration(seed: Int) {
    let memory = FakeMemory(size: 1 << 16)
    expectRestoredTwin(seed: seed, offsets: 0..<12, widths: [1, 2, 4], longestPause: 1000) {
      FirmwareConfiguration(
        contents: FirmwareConfigurationTests.contents, memory: memory, state: $1)
    }
  }
}
