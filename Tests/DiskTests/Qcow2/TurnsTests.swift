import Disk
import LinuxSystem
import TestSupport
import Testing

/// Random requests of ours and of `qemu-io` in turns, each of which reads what the other wrote.
@Suite("qcow2, in turns with qemu-io", .needs("qemu-img", "qemu-io"))
struct TurnsTests {
  private static let sectors = 4000
  private static let byteCount = sectors * 512
  /// What the base has throughout.
  private static let base: UInt8 = 0x77

  private final class Turns {
    let bench: ImageBench
    var generator: SeededGenerator
    /// By sector, the byte that it has throughout.
    var model: [UInt8]

    init(_ setting: ModelTests.Setting, seed: UInt64) throws {
      bench = try ImageBench()
      generator = SeededGenerator(seed: seed)
      model = [UInt8](repeating: 0, count: sectors)
      var options = [
        "cluster_size=\(setting.clusterSize)",
        "compat=\(setting.version == 2 ? "0.10" : "1.1")",
      ]
      if setting.version == 3 {
        options += [
          "lazy_refcounts=\(setting.isLazy ? "on" : "off")",
          "refcount_bits=\(setting.refcountBits)", "compression_type=\(setting.compression)",
        ]
      }
      var over = ""
      if let (format, count) = setting.base {
        let size = count / 512
        try bench.directory.write(
          [UInt8](repeating: TurnsTests.base, count: size * 512), to: "base.raw")
        try bench.run("qemu-img convert -f raw -O \(format) base.raw base")
        over = "-b base -F \(format)"
        for sector in 0..<min(size, sectors) { model[sector] = TurnsTests.base }
      }
      try bench.run(
        "qemu-img create -q -f qcow2 -o \(options.joined(separator: ",")) \(over) disk"
          + " \(byteCount)")
    }

    private func range() -> Range<Int> {
      let first = Int.random(in: 0..<sectors, using: &generator)
      let most = [4, 64, 600].randomElement(using: &generator) ?? 4
      let count = Int.random(in: 1...most, using: &generator)
      return first..<min(sectors, first + count)
    }

    private func set(_ range: Range<Int>, _ byte: UInt8) {
      for sector in range { model[sector] = byte }
    }

    func ours() throws {
      let image = try bench.open("disk")
      for _ in 0..<12 {
        let range = range()
        let (offset, count) = (UInt64(range.lowerBound * 512), range.count * 512)
        switch Int.random(in: 0..<8, using: &generator) {
        case 0:
          try image.writeZeroes(
            offset: offset, count: UInt64(count),
            mayDiscard: Bool.random(using: &generator))
          set(range, 0)
        case 1: try image.flush()
        default:
          let byte = UInt8.random(in: 1...255, using: &generator)
          try image.write([UInt8](repeating: byte, count: count), at: offset)
          set(range, byte)
        }
      }
      try image.close()
    }

    func theirs() throws {
      let commands = (0..<12).map { _ in
        let range = range()
        let place = "\(range.lowerBound * 512) \(range.count * 512)"
        switch Int.random(in: 0..<8, using: &generator) {
        case 0:
          set(range, 0)
          return "-c 'write -q -z \(Bool.random(using: &generator) ? "-u " : "")\(place)'"
        case 1: return "-c 'flush'"
        default:
          let byte = UInt8.random(in: 1...255, using: &generator)
          set(range, byte)
          return "-c 'write -q -P \(byte) \(place)'"
        }
      }
      try bench.run("qemu-io -f qcow2 -d unmap \(commands.joined(separator: " ")) disk")
    }

    /// Has `qemu-io` compare all sectors.
    ///
    /// - Returns: what it says, if one has other bytes.
    func readByThem() throws -> String {
      var said = ""
      var commands: [String] = []
      var start = 0
      while start < sectors {
        let end = model[start...].firstIndex { $0 != model[start] } ?? sectors
        commands.append("-c 'read -q -P \(model[start]) \(start * 512) \((end - start) * 512)'")
        start = end
      }
      for part in stride(from: 0, to: commands.count, by: 200) {
        let some = commands[part..<min(part + 200, commands.count)].joined(separator: " ")
        // It succeeds in some versions all the same.
        said += try bench.directory.run("qemu-io -f qcow2 -r \(some) disk 2>&1").output
      }
      return said
    }

    func readByUs() throws {
      let contents = try bench.contents(ofOurs: "disk")
      let wrong = model.indices.first { sector in
        contents[sector * 512..<(sector + 1) * 512].contains { $0 != model[sector] }
      }
      #expect(wrong == nil, "sector \(wrong ?? 0)")
    }
  }

  @Test("each reads what the other wrote, over and over", arguments: ModelTests.settings)
  func turns(setting: ModelTests.Setting) throws {
    let turns = try Turns(setting, seed: 111)
    for _ in 0..<5 {
      try turns.ours()
      #expect(try turns.readByThem() == "")
      try turns.theirs()
      try turns.readByUs()
    }
    #expect(try turns.readByThem() == "")
    try turns.bench.check("disk")
  }

  @Test("qemu-io's comparison finds a sector that is another")
  func finds() throws {
    let turns = try Turns(ModelTests.Setting(clusterSize: 65536), seed: 1)
    try turns.ours()
    turns.model[700] ^= 1
    #expect(try turns.readByThem().contains("Pattern verification failed at offset \(700 * 512)"))
  }
}
