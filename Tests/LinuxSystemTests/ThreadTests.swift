import LinuxSystem
import Testing

@Suite("Threads")
struct ThreadTests {
  @Test("those that were made ready run what they are given, once, and are joined")
  func prepared() throws {
    try Thread.prepare(3)
    let ran = Guarded<[Int]>([])
    let threads = try (0..<5).map { number in
      try Thread(name: "number \(number)") { ran.withLock { $0.append(number) } }
    }
    for thread in threads { thread.join() }
    #expect(ran.withLock { $0.sorted() } == [0, 1, 2, 3, 4])
    #expect(threads.allSatisfy { $0.kernelIdentifier == nil })
  }
}
