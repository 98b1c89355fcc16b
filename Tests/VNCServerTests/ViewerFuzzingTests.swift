import Glibc
import TestSupport
import Testing
import VNCServer

@Suite("What viewers may say")
struct ViewerFuzzingTests {
  private static let corpus = "\(Programs.repository)/Tests/Fuzz/Corpus/viewer"

  @Test("whatever comes means the same in pieces and at once", arguments: 0..<8)
  func random(seed: Int) throws {
    var state = UInt64(seed) &* 2_654_435_761 | 1
    func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state >> 33
    }
    let directory = try #require(opendir(Self.corpus))
    defer { closedir(directory) }
    var seeds: [[UInt8]] = []
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        // SAFETY: readdir ends names with a NUL inside the array.
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if let bytes = try? read("\(Self.corpus)/\(name)") { seeds.append(bytes) }
    }
    #expect(seeds.count > 5)
    for original in seeds {
      #expect(ViewerFuzzing.run(original))
      for _ in 0..<60 where original.count > 14 {
        var bytes = original
        for _ in 0..<(1 + next() % 4) {
          bytes[Int(next()) % bytes.count] = UInt8(next() & 255)
        }
        #expect(ViewerFuzzing.run(bytes), "\(bytes)")
      }
    }
  }

  private func read(_ path: String) throws -> [UInt8] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
    return bytes
  }
}
