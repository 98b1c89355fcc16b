/// A set of pages, one bit to each.
public struct DirtyPages: Sendable, Equatable {
  public static let pageSize = 4096
  public var words: [UInt64]

  public init(words: [UInt64]) { self.words = words }

  public init(pageCount: Int, allDirty: Bool = false) {
    words = Array(repeating: allDirty ? .max : 0, count: (pageCount + 63) / 64)
    if allDirty, pageCount % 64 != 0 { words[words.count - 1] = 1 << UInt64(pageCount % 64) - 1 }
  }

  public var isEmpty: Bool { words.allSatisfy { $0 == 0 } }

  /// How many pages are in it.
  public var count: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }

  /// The last page in it.
  public var last: Int? {
    words.lastIndex { $0 != 0 }.map { $0 * 64 + 63 - words[$0].leadingZeroBitCount }
  }

  public func contains(page: Int) -> Bool {
    page / 64 < words.count && words[page / 64] & (1 << UInt64(page % 64)) != 0
  }

  /// The first pages from `start` on that follow one another, `limit` at most; `nil` when there
  /// is none.
  public func run(from start: Int, limit: Int) -> Range<Int>? {
    var page = start
    while page / 64 < words.count {
      let rest = words[page / 64] >> UInt64(page % 64)
      guard rest != 0 else {
        page = (page / 64 + 1) * 64
        continue
      }
      page += rest.trailingZeroBitCount
      var end = page + 1
      while end - page < limit, contains(page: end) { end += 1 }
      return page..<end
    }
    return nil
  }

  public mutating func insert(page: Int) {
    guard page >= 0, page / 64 < words.count else { return }
    words[page / 64] |= 1 << UInt64(page % 64)
  }

  public mutating func remove(page: Int) {
    guard page >= 0, page / 64 < words.count else { return }
    words[page / 64] &= ~(1 << UInt64(page % 64))
  }

  public mutating func insert(pages: Range<Int>) {
    for page in pages { insert(page: page) }
  }

  public mutating func remove(pages: Range<Int>) {
    for page in pages { remove(page: page) }
  }

  /// The pages that hold a range of bytes.
  public mutating func insert(bytes: Range<Int>) {
    guard !bytes.isEmpty else { return }
    for page in bytes.lowerBound / Self.pageSize...(bytes.upperBound - 1) / Self.pageSize {
      insert(page: page)
    }
  }

  public mutating func formUnion(_ other: DirtyPages) {
    for index in words.indices where index < other.words.count {
      words[index] |= other.words[index]
    }
  }

  public mutating func subtract(_ other: DirtyPages) {
    for index in words.indices where index < other.words.count {
      words[index] &= ~other.words[index]
    }
  }

  public mutating func formIntersection(_ other: DirtyPages) {
    for index in words.indices {
      words[index] &= index < other.words.count ? other.words[index] : 0
    }
  }

  /// Calls `body` with each run of pages that follow one another, in their order, none
  /// longer than `limit`.
  public func forEachRun<Failure: Error>(
    limit: Int = .max, _ body: (Range<Int>) throws(Failure) -> Void
  ) throws(Failure) {
    var start: Int?
    func finish(_ end: Int) throws(Failure) {
      guard var first = start else { return }
      while first < end {
        let next = limit < end - first ? first + limit : end
        try body(first..<next)
        first = next
      }
      start = nil
    }
    for (index, word) in words.enumerated() {
      if word == 0 {
        try finish(index * 64)
      } else if word == .max {
        if start == nil { start = index * 64 }
      } else {
        for bit in 0..<64 {
          if word >> UInt64(bit) & 1 == 0 {
            try finish(index * 64 + bit)
          } else if start == nil {
            start = index * 64 + bit
          }
        }
      }
    }
    try finish(words.count * 64)
  }
}
