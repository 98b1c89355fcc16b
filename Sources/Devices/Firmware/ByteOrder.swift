import CarrelBase

package typealias LittleEndian = CarrelBase.LittleEndian
package typealias BigEndian = CarrelBase.BigEndian
