import DeviceModel

/// Drives a flash chip with an arbitrary byte string, as a guest with bad intentions
/// would. Shared by the fuzz target and the tests.
package enum FlashFuzzing {
  /// Interprets `program` as accesses, resets and restores.
  ///
  /// - Returns: whether the chip kept to its array, and reads were switched as it stands.
  package static func run(_ program: [UInt8]) -> Bool {
    let array = Array(size: 4 * FlashMemory.blockSize)
    var chip = FlashMemory(array: array, state: nil)
    var rest = program[...]
    func next() -> UInt64 { UInt64(rest.popFirst() ?? 0) }
    while let operation = rest.popFirst() {
      let place = next() << 8 | next()
      switch operation & 7 {
      case 0: _ = chip.read(offset: place, width: 1)
      case 1: chip.reset()
      case 2: chip = FlashMemory(array: array, state: chip.saveState())
      default: chip.write(offset: place, width: 1, value: next())
      }
    }
    chip.reset()
    return array.readsArray && array.isSound
  }

  private final class Array: FlashArray {
    private let storage: UnsafeMutableRawBufferPointer
    private(set) var readsArray = false
    private(set) var isSound = true

    var bytes: UnsafeMutableRawBufferPointer {
      // SAFETY: the last page is there to be found changed, not for the chip.
      UnsafeMutableRawBufferPointer(rebasing: storage[..<(storage.count - 64)])
    }

    init(size: Int) {
      // SAFETY: allocated here, freed in deinit, and as large as it is said to be.
      storage = .allocate(byteCount: size + 64, alignment: 16)
      storage.initializeMemory(as: UInt8.self, repeating: 0xFF)
    }

    deinit { storage.deallocate() }

    func setReadsArray(_ on: Bool) { readsArray = on }

    func changed(_ range: Range<Int>) {
      isSound =
        isSound && range.lowerBound >= 0 && range.upperBound <= storage.count - 64
        && storage[(storage.count - 64)...].allSatisfy { $0 == 0xFF }
    }
  }
}
