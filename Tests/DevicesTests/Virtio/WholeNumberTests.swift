import DeviceModel
import LinuxSystem
import Synchronization
import Testing

@Suite struct WholeNumberTests {
  @Test("an index that another processor changes is never half of the old and half of the new")
  func index() throws {
    let memory = try SharedMemory(name: "index", size: 4096).map()
    let (before, after): (UInt16, UInt16) = (0x00FF, 0x0100)
    memory.bytes.storeBytes(of: before, as: UInt16.self)
    let isEnough = Guarded(false)
    let writer = try Thread(name: "writer") {
      while !isEnough.withLock({ $0 }) {
        for _ in 0..<10_000 {
          for index in [after, before] {
            // SAFETY: within the mapping; whole numbers race here on purpose.
            memory.bytes.storeBytes(of: index, as: UInt16.self)
            // Both are stored, though the next would do.
            atomicMemoryFence(ordering: .sequentiallyConsistent)
          }
        }
      }
    }
    var seen: Set<UInt16> = []
    for _ in 0..<5_000_000 {
      var value: UInt16 = 0
      withUnsafeMutableBytes(of: &value) {
        $0.copyWhole(from: UnsafeRawBufferPointer(rebasing: memory.bytes[0..<2]))
      }
      seen.insert(value)
    }
    isEnough.change { $0 = true }
    writer.join()
    #expect(seen.isSubset(of: [before, after]))
  }

  @Test("any number of bytes is copied", arguments: 0...17)
  func counts(count: Int) {
    let source = (0..<count).map { UInt8(truncatingIfNeeded: $0 + 1) }
    var target = [UInt8](repeating: 0, count: count + 1)
    target.withUnsafeMutableBytes { target in
      source.withUnsafeBytes { target.copyWhole(from: $0) }
    }
    #expect(target == source + [0])
  }
}
