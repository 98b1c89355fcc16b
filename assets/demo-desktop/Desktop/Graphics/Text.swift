/// Text of the desktop: code points of the basic plane.
typealias Text = [UInt16]

extension String {
  var text: Text { unicodeScalars.map { UInt16(truncatingIfNeeded: $0.value) } }
}
