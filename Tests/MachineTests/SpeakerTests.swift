import DisplayLink
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("speaker", .needsKVM)
struct SpeakerTests {
  /// Real-mode code at the start of a ROM: sounds 1 kHz, waits for OUT2 to be high and
  /// then low, falls silent, and resets the machine.
  static var rom: [UInt8] {
    let program: [UInt8] = [
      0xB0, 0xB6, 0xE6, 0x43,  // channel 2: square wave
      0xB0, 0xA9, 0xE6, 0x42, 0xB0, 0x04, 0xE6, 0x42,  // reload 1193
      0xB0, 0x03, 0xE6, 0x61,  // gate and speaker on
      0xE4, 0x61, 0xA8, 0x20, 0x74, 0xFA,  // until OUT2
      0xE4, 0x61, 0xA8, 0x20, 0x75, 0xFA,  // until not OUT2
      0xB0, 0x00, 0xE6, 0x61,
      0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE,  // 0xCF9
      0xFA, 0xF4,
    ]
    var rom = program + [UInt8](repeating: 0x90, count: 4096 - program.count)
    // The reset vector: jump to the first byte.
    rom.replaceSubrange(0xFF0..<0xFF3, with: [0xE9, 0x0D, 0xF0])
    return rom
  }

  @Test("a guest that sounds the speaker rings the viewers' bell, and sees OUT2 alternate")
  func bell() throws {
    let directory = try TemporaryDirectory()
    var configuration = MachineConfiguration()
    configuration.memory = 16 << 20
    configuration.boot = .rom(path: try directory.write(Self.rom, to: "rom"))
    let machine = try Machine(configuration)
    let output = try DisplayOutput(of: machine, path: nil)
    let display = try DisplayLinkClient(connected: try output.connect())
    let poller = try Poller()
    try poller.add(display.descriptor, token: 0)
    let resets = Guarded(0)
    machine.onEvent { event in
      if case .reset(.guest) = event { resets.change { $0 += 1 } }
    }

    // Attached before the guest starts, so that its bell is not missed.
    func wait(for wanted: (DisplayLinkClient.Event) -> Bool) throws {
      while true {
        let ready = try poller.wait(milliseconds: 20_000)
        try #require(!ready.isEmpty, "nothing came over the display link for 20 seconds")
        if display.process().contains(where: wanted) { return }
      }
    }
    try wait { if case .surface = $0 { true } else { false } }
    try machine.resume()
    try wait { if case .bell = $0 { true } else { false } }
    resets.wait(until: { $0 > 0 }) { _ in }
    machine.tearDown()
    withExtendedLifetime(output) {}
  }
}
