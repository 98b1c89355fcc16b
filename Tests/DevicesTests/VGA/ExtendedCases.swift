import Testing

/// Scripts for Bochs VBE modes.
struct ExtendedCase: ScriptCase {
  let name: String
  let width: UInt16
  let height: UInt16
  let depth: UInt16
  var enable: UInt16 = 0x41
  let change: @Sendable (inout RegisterScript) -> Void

  var script: RegisterScript {
    var script = RegisterScript()
    script.set(.packed320x200)
    script.setColors()
    script.vbe(4, 0)
    script.vbe(1, width)
    script.vbe(2, height)
    script.vbe(3, depth)
    script.vbe(4, enable)
    change(&script)
    return script
  }

  static let all: [ExtendedCase] =
    [4, 8, 15, 16, 24, 32].map { (depth: UInt16) in
      ExtendedCase(name: "400x300 at \(depth) bits", width: 400, height: 300, depth: depth) {
        $0.steps.append(.videoMemory(0, RegisterScript.noise(400 * 300 * 4)))
      }
    } + [
      ExtendedCase(name: "through 64 KiB banks", width: 640, height: 480, depth: 8) {
        for bank in 0..<5 {
          $0.vbe(5, UInt16(bank))
          $0.write(0xA0000, RegisterScript.noise(61440, seed: UInt64(bank + 20)))
          $0.steps.append(.read(0xA0100, 4))
        }
      },
      ExtendedCase(name: "a virtual screen, moved", width: 800, height: 600, depth: 32) {
        $0.vbe(6, 1024)
        $0.steps.append(.videoMemory(0, RegisterScript.noise(1024 * 700 * 4)))
        $0.vbe(8, 100)
        $0.vbe(9, 37)
        $0.readEveryVBERegister()
      },
      ExtendedCase(name: "moved to odd pixels at 16 bits", width: 320, height: 200, depth: 16) {
        $0.vbe(6, 640)
        $0.steps.append(.videoMemory(0, RegisterScript.noise(640 * 300 * 2)))
        $0.vbe(8, 7)
        $0.vbe(9, 3)
      },
      ExtendedCase(name: "moved at 8 bits", width: 320, height: 200, depth: 8) {
        $0.vbe(6, 640)
        $0.steps.append(.videoMemory(0, RegisterScript.noise(640 * 300)))
        $0.vbe(8, 12)
        $0.vbe(9, 30)
      },
      ExtendedCase(
        name: "an 8-bit DAC", width: 320, height: 200, depth: 8, enable: 0x61
      ) {
        $0.dac(from: 0, RegisterScript.noise(768, seed: 77))
        $0.steps.append(.videoMemory(0, RegisterScript.noise(64000)))
      },
      ExtendedCase(name: "old contents kept", width: 320, height: 200, depth: 32) {
        $0.steps.append(.videoMemory(0, RegisterScript.noise(256_000)))
        $0.vbe(4, 0)
        $0.vbe(4, 0xC1)
      },
      ExtendedCase(name: "old contents cleared", width: 320, height: 200, depth: 32) {
        $0.steps.append(.videoMemory(0, RegisterScript.noise(256_000)))
        $0.vbe(2, 100)
        $0.vbe(4, 0)
        $0.vbe(4, 0x41)
        $0.vbe(2, 200)
      },
      ExtendedCase(name: "values brought into range", width: 1023, height: 0, depth: 13) {
        $0.steps.append(.videoMemory(0, RegisterScript.noise(4096)))
        $0.readEveryVBERegister()
        $0.vbe(6, 60000)
        $0.vbe(9, 50000)
        $0.vbe(8, 50000)
        $0.readEveryVBERegister()
        $0.vbe(2, 65535)
        $0.vbe(1, 65535)
        $0.readEveryVBERegister()
        $0.vbe(1, 640)
        $0.vbe(2, 480)
        $0.vbe(6, 640)
        $0.vbe(8, 0)
        $0.vbe(9, 0)
      },
      ExtendedCase(name: "big-endian true colour", width: 320, height: 200, depth: 32) {
        $0.steps.append(.videoMemory(0, RegisterScript.noise(256_000)))
        $0.steps.append(.mmioWrite(0x604, width: 4, 0xBEBE_BEBE))
        $0.steps.append(.mmioRead(0x604, width: 4))
        $0.steps.append(.mmioRead(0x600, width: 4))
      },
      ExtendedCase(name: "set through BAR 2", width: 320, height: 200, depth: 32) {
        $0.steps.append(.mmioWrite(0x508, width: 2, 0))
        $0.steps.append(.mmioWrite(0x502, width: 2, 400))
        $0.steps.append(.mmioWrite(0x504, width: 2, 300))
        $0.steps.append(.mmioWrite(0x506, width: 2, 16))
        $0.steps.append(.mmioWrite(0x508, width: 2, 0x41))
        $0.steps.append(.mmioWrite(0x400, width: 1, 0x20))
        $0.steps.append(.mmioRead(0x502, width: 2))
        $0.steps.append(.mmioRead(0x50E, width: 2))
        $0.steps.append(.mmioRead(0x514, width: 2))
        $0.steps.append(.videoMemory(0, RegisterScript.noise(240_000)))
      },
      ExtendedCase(name: "back to mode 13h", width: 640, height: 480, depth: 32) {
        $0.steps.append(.refresh)
        $0.vbe(4, 0)
        $0.set(.packed320x200)
        $0.write(0xA0000, RegisterScript.noise(64000, seed: 9))
      },
    ]
}

extension RegisterScript {
  mutating func readEveryVBERegister() {
    for index: UInt16 in 0...11 {
      steps.append(.out16(0x1CE, index))
      steps.append(.in16(0x1CF))
    }
    vbe(4, 0x43)
    for index: UInt16 in 1...3 {
      steps.append(.out16(0x1CE, index))
      steps.append(.in16(0x1CF))
    }
    vbe(4, 0x41)
  }
}
